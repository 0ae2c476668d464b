// Package house holds the tests that keep the kit in order: which package may
// import which, the exported API against its golden files in api/, an Example
// for every constructor, and documents that name only what exists. It has no
// code of its own.
package house
