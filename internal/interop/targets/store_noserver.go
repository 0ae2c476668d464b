//go:build !linux

package targets

// postgresMeasures needs pgserver, which is for Linux.
func postgresMeasures() []Measure { return nil }
