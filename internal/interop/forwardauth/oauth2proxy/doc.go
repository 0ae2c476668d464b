// Package oauth2proxy pins the oauth2-proxy that the tests of the directory
// above build and run. It is a module of its own, so that what oauth2-proxy
// requires does not change what the other tests run with.
package oauth2proxy
