//go:build race

package plainware_test

// The race detector looks at each byte that is copied: with 8 MiB a body, the
// pairs would take minutes. Each package runs the suite with 8 MiB under it,
// and each pair does without it.
const largeBody = 512 << 10
