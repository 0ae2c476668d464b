//go:build !race

package plainware_test

const largeBody = 0 // the suite's own size, 8 MiB
