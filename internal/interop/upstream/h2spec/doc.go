// Package h2spec pins the h2specd that the tests of the directory above build
// and run. It is a module of its own, so that what h2spec requires does not
// change what the other tests run with.
//
// It is h2spec 2.2.1: the releases since then, up to 2.6.0, cannot be had as a
// Go module, and their cases for clients are the same.
package h2spec
