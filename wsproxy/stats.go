package wsproxy

import (
	"net/netip"
	"time"
)

// Info describes an open tunnel.
type Info struct {
	ID          uint64 // unique within the Proxy, from 1
	Client      netip.Addr
	Path        string // of the client's request, without the query
	Target      string // the back end's URL, without userinfo and query
	FrontProto  string // "HTTP/1.1" or "HTTP/2.0"
	BackProto   string // "HTTP/1.1"
	Subprotocol string // what the back end chose, or empty
	Opened      time.Time
	FromClient  Traffic
	FromBackend Traffic
}

// Traffic is what one side has sent so far.
type Traffic struct {
	Bytes    uint64 // after the handshake, of which
	Spliced  uint64 // so many went from socket to socket inside the kernel
	Frames   uint64 // this and the rest only with Frames
	Messages uint64 // complete ones
	Pings    uint64
	Close    CloseFrame // the first one; Code 0 if there was none
}

// CloseFrame is the content of a Close frame (RFC 6455 section 5.5.1).
type CloseFrame struct {
	Code   int // 1005 if the frame was empty
	Reason string
}

// Stats describes a tunnel that has ended.
type Stats struct {
	Info
	Duration time.Duration
	// FirstByte is the time from the opening to the first byte of the back
	// end, zero if there was none.
	FirstByte time.Duration
	End       End
	// Sent is the Close frame that the Proxy itself sent to the client; Code is
	// 0 if it sent none.
	Sent CloseFrame
	// Err says more where End is not enough: the error of a connection.
	Err error
}

// End says why a tunnel has ended: what came first.
type End uint8

const (
	EndClient      End = iota + 1 // the client closed, with a Close frame or an orderly end
	EndBackend                    // the back end did
	EndClientLost                 // the client's connection was reset or lost
	EndBackendLost                // the back end's was
	EndIdle                       // Timeouts.Idle
	EndPong                       // Timeouts.Pong: one side did not answer a ping
	EndWriteStall                 // Timeouts.WriteStall
	EndLifetime                   // Timeouts.Lifetime
	EndTooLarge                   // Limits.Frame or Limits.Message: 1009
	EndProtocol                   // a malformed frame: 1002
	EndDrained                    // Drain, Shutdown or CloseTunnel
	EndClosed                     // Close, or the end of Shutdown's context
	EndPanic                      // a hook panicked
)

// String returns a short lower-case name, for logs and labels.
func (e End) String() string {
	names := [...]string{"unknown", "client", "backend", "client lost", "backend lost", "idle", "pong",
		"write stall", "lifetime", "too large", "protocol", "drained", "closed", "panic"}
	if int(e) >= len(names) {
		e = 0
	}
	return names[e]
}
