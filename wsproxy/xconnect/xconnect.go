// Package xconnect lets the HTTP/2 servers of a process accept WebSockets, by
// the extended CONNECT of RFC 8441. Import it for its effect, in package main:
//
//	import _ "example.com/plainware/wsproxy/xconnect"
//
// net/http contains extended CONNECT but leaves it switched off unless GODEBUG
// holds http2xconnect=1 when the program starts; no field and no //go:debug
// line turns it on. This package adds the setting before net/http reads it.
//
// # What it changes
//
// Every HTTP/2 server of the process, not only the ones that have a WebSocket
// proxy: each sends SETTINGS_ENABLE_CONNECT_PROTOCOL, and passes requests with
// :protocol to its handler. A browser that sees the setting sends its
// WebSockets that way, so a handler on the same server that knows only Upgrade
// no longer works for it. That is why it is a package of its own, and why
// package wsproxy does not import it.
//
// GODEBUG is changed in the environment of the process, so programs that it
// starts inherit the setting.
//
// Servers of golang.org/x/net/http2 (http2.ConfigureServer) are among them:
// that package reads the same variable for itself, later than net/http, which it
// imports. What wsproxy.Prepare finds holds for them as well, and they take the
// buffers that it sets, whether it is called before ConfigureServer or after.
//
// # What it leaves alone
//
// A GODEBUG that already holds http2xconnect, with 0 or 1: who runs the
// program has decided, and http2xconnect=0 is how to switch it off.
//
// # Why it is in time
//
// net/http reads the variable once, when it is initialized. Packages are
// initialized in the order of their import paths, each as soon as its imports
// are. This one imports only syscall, which net/http needs as well, and its
// path sorts before "golang.org/x/net/http2" and before "net/http". Renamed or
// copied to a path that sorts after them it has no effect; its test fails
// then. wsproxy.Prepare looks at what a server really sends, and is the check
// to rely on in a program.
package xconnect

import "syscall"

// setting is what net/http searches for.
const setting = "http2xconnect"

func init() {
	v, _ := syscall.Getenv("GODEBUG")
	if set := with(v); set != v {
		// An error leaves the setting off, and Prepare says so.
		_ = syscall.Setenv("GODEBUG", set)
	}
}

// with returns the value of GODEBUG with the setting switched on, and v itself
// where it says on or off already. It does without package strings to keep the
// list of imports at the one that is needed.
func with(v string) string {
	for rest := v; rest != ""; {
		end := 0
		for end < len(rest) && rest[end] != ',' {
			end++
		}
		item := rest[:end]
		if len(item) > len(setting) && item[:len(setting)] == setting && item[len(setting)] == '=' {
			return v
		}
		rest = rest[min(end+1, len(rest)):]
	}
	if v != "" {
		v += ","
	}
	return v + setting + "=1"
}
