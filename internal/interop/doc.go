// Package interop is a module of its own that is never published. It holds
// every test and benchmark that needs a third-party module or a real server,
// so that none of them becomes a requirement of the kit.
//
// One directory per package of the kit holds its tests against other
// libraries; [example.com/plainware/internal/interop/prog] runs the programs
// they need; cmd/targets measures against named peers.
package interop
