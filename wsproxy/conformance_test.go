package wsproxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/wsproxy"
)

// conformanceCase is one case under its number in the Autobahn test suite:
// what a client sends to an echo server, and what it must get back.
type conformanceCase struct {
	number string
	send   []frame // masked when sent
	chop   int     // octets a write; 0 is all at once
	want   []frame // whole messages and control frames, in order
	code   uint16  // the Close that the server answers; 0: none until the client closes with 1000
	early  bool    // the code may come before all of want
}

func text(s string) frame   { return frame{fin: true, op: opText, payload: []byte(s)} }
func binaryOf(n int) frame  { return frame{fin: true, op: opBinary, payload: filler(n)} }
func textOf(n int) frame    { return frame{fin: true, op: opText, payload: filler(n)} }
func ping(s string) frame   { return frame{fin: true, op: opPing, payload: []byte(s)} }
func pong(s string) frame   { return frame{fin: true, op: opPong, payload: []byte(s)} }
func begin(s string) frame  { return frame{op: opText, payload: []byte(s)} }
func middle(s string) frame { return frame{op: opContinuation, payload: []byte(s)} }
func last(s string) frame   { return frame{fin: true, op: opContinuation, payload: []byte(s)} }

// filler is n bytes of text without a pattern of a power of two.
func filler(n int) []byte {
	const line = "The quick brown fox jumps over the lazy dog, 0123456789. "
	return bytes.Repeat([]byte(line), n/len(line)+1)[:n]
}

func closing(payload []byte) frame { return frame{fin: true, op: opClose, payload: payload} }

func with(f frame, change func(*frame)) frame {
	change(&f)
	return f
}

// conformanceCases are all but the large ones.
func conformanceCases() []conformanceCase {
	var all []conformanceCase
	add := func(c conformanceCase) { all = append(all, c) }

	// 1: framing. The sizes at which the length changes its form.
	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		add(conformanceCase{number: fmt.Sprintf("1.1.%d", i+1), send: []frame{textOf(n)}, want: []frame{textOf(n)}})
		add(conformanceCase{number: fmt.Sprintf("1.2.%d", i+1), send: []frame{binaryOf(n)}, want: []frame{binaryOf(n)}})
	}
	add(conformanceCase{number: "1.1.8", send: []frame{textOf(65536)}, want: []frame{textOf(65536)}, chop: 997})
	add(conformanceCase{number: "1.2.8", send: []frame{binaryOf(65536)}, want: []frame{binaryOf(65536)}, chop: 997})

	// 2: pings and pongs.
	binaryPing := "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	longest := string(bytes.Repeat([]byte{0xfe}, 125))
	var ten, tenBack []frame
	for i := range 10 {
		ten = append(ten, ping(fmt.Sprint("payload-", i)))
		tenBack = append(tenBack, pong(fmt.Sprint("payload-", i)))
	}
	for _, c := range []conformanceCase{
		{number: "2.1", send: []frame{ping("")}, want: []frame{pong("")}},
		{number: "2.2", send: []frame{ping("Hello, world!")}, want: []frame{pong("Hello, world!")}},
		{number: "2.3", send: []frame{ping(binaryPing)}, want: []frame{pong(binaryPing)}},
		{number: "2.4", send: []frame{ping(longest)}, want: []frame{pong(longest)}},
		{number: "2.5", send: []frame{ping(longest + "\xfe")}, code: 1002},
		{number: "2.6", send: []frame{ping(longest)}, want: []frame{pong(longest)}, chop: 1},
		{number: "2.7", send: []frame{pong("")}},
		{number: "2.8", send: []frame{pong("unsolicited pong payload")}},
		{number: "2.9", send: []frame{pong("unsolicited"), ping("ping payload")}, want: []frame{pong("ping payload")}},
		{number: "2.10", send: ten, want: tenBack},
		{number: "2.11", send: ten, want: tenBack, chop: 1},
	} {
		add(c)
	}

	// 3: reserved bits, on each kind of frame and after a good message.
	hello := text("Hello, world!")
	rsv := func(f frame, bits byte) frame { return with(f, func(f *frame) { f.rsv = bits }) }
	for _, c := range []conformanceCase{
		{number: "3.1", send: []frame{rsv(hello, 1)}, code: 1002},
		{number: "3.2", send: []frame{hello, rsv(hello, 2), ping("")}, want: []frame{hello}, code: 1002},
		{number: "3.3", send: []frame{hello, rsv(hello, 3), ping("")}, want: []frame{hello}, code: 1002},
		{number: "3.4", send: []frame{hello, rsv(hello, 4), ping("")}, want: []frame{hello}, code: 1002, chop: 1},
		{number: "3.5", send: []frame{rsv(binaryOf(8), 5)}, code: 1002},
		{number: "3.6", send: []frame{rsv(ping("Hello, world!"), 6)}, code: 1002},
		{number: "3.7", send: []frame{rsv(closing(nil), 7)}, code: 1002},
	} {
		c.early = true
		add(c)
	}

	// 4: reserved opcodes, for data and control.
	for i, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		series, n := 1, i+1
		if i >= 5 {
			series, n = 2, i-4
		}
		c := conformanceCase{number: fmt.Sprintf("4.%d.%d", series, n), code: 1002, early: true}
		bad := frame{fin: true, op: op}
		switch n {
		case 1:
			c.send = []frame{bad}
		case 2:
			bad.payload = []byte("reserved opcode payload")
			c.send = []frame{bad}
		case 3:
			c.send, c.want = []frame{hello, bad, ping("")}, []frame{hello}
		case 4:
			bad.payload = []byte("reserved opcode payload")
			c.send, c.want = []frame{hello, bad, ping("")}, []frame{hello}
		case 5:
			bad.payload = []byte("reserved opcode payload")
			c.send, c.want, c.chop = []frame{hello, bad, ping("")}, []frame{hello}, 1
		}
		add(c)
	}

	// 5: fragmentation.
	noFIN := func(f frame) frame { return with(f, func(f *frame) { f.fin = false }) }
	both := text("fragment1fragment2")
	four := text("fragment1fragment2fragment3fragment4")
	for _, c := range []conformanceCase{
		{number: "5.1", send: []frame{noFIN(ping("fragment1")), last("fragment2")}, code: 1002},
		{number: "5.2", send: []frame{noFIN(pong("fragment1")), last("fragment2")}, code: 1002},
		{number: "5.3", send: []frame{begin("fragment1"), last("fragment2")}, want: []frame{both}},
		{number: "5.4", send: []frame{begin("fragment1"), last("fragment2")}, want: []frame{both}, chop: 7},
		{number: "5.5", send: []frame{begin("fragment1"), last("fragment2")}, want: []frame{both}, chop: 1},
		{number: "5.6", send: []frame{begin("fragment1"), ping("ping payload"), last("fragment2")}, want: []frame{pong("ping payload"), both}},
		{number: "5.7", send: []frame{begin("fragment1"), ping("ping payload"), last("fragment2")}, want: []frame{pong("ping payload"), both}, chop: 7},
		{number: "5.8", send: []frame{begin("fragment1"), ping("ping payload"), last("fragment2")}, want: []frame{pong("ping payload"), both}, chop: 1},
		{number: "5.9", send: []frame{last("non-continuation payload"), hello}, code: 1002},
		{number: "5.10", send: []frame{last("non-continuation payload"), hello}, code: 1002, chop: 7},
		{number: "5.11", send: []frame{last("non-continuation payload"), hello}, code: 1002, chop: 1},
		{number: "5.12", send: []frame{middle("non-continuation payload"), hello}, code: 1002},
		{number: "5.13", send: []frame{middle("non-continuation payload"), hello}, code: 1002, chop: 7},
		{number: "5.14", send: []frame{middle("non-continuation payload"), hello}, code: 1002, chop: 1},
		{number: "5.15", send: []frame{begin("fragment1"), last("fragment2"), middle("fragment3"), begin("fragment4")}, want: []frame{both}, code: 1002, early: true},
		{number: "5.16", send: []frame{middle("fragment1"), begin("fragment2"), last("fragment3")}, code: 1002},
		{number: "5.17", send: []frame{last("fragment1"), begin("fragment2"), last("fragment3")}, code: 1002},
		{number: "5.18", send: []frame{begin("fragment1"), text("fragment2")}, code: 1002},
		{number: "5.19", send: []frame{begin("fragment1"), middle("fragment2"), ping("pongme 1!"), middle("fragment3"), ping("pongme 2!"), last("fragment4")},
			want: []frame{pong("pongme 1!"), pong("pongme 2!"), four}},
		{number: "5.20", send: []frame{begin("fragment1"), middle("fragment2"), ping("pongme 1!"), middle("fragment3"), ping("pongme 2!"), last("fragment4")},
			want: []frame{pong("pongme 1!"), pong("pongme 2!"), four}, chop: 5},
	} {
		add(c)
	}

	all = append(all, utf8Cases()...)
	all = append(all, closeCases()...)

	// 10: a message that arrives in many segments.
	add(conformanceCase{number: "10.1.1", send: []frame{textOf(65536)}, want: []frame{textOf(65536)}, chop: 1300})
	return all
}

// closeCases are 7: the closing handshake.
func closeCases() []conformanceCase {
	code := func(c uint16, reason string) frame { return closing(closePayload(c, reason)) }
	hello := text("Hello World!")
	all := []conformanceCase{
		{number: "7.1.1", send: []frame{hello}, want: []frame{hello}},
		{number: "7.1.2", send: []frame{code(1000, ""), code(1000, "")}, code: 1000},
		{number: "7.1.3", send: []frame{code(1000, ""), ping("")}, code: 1000},
		{number: "7.1.4", send: []frame{code(1000, ""), hello}, code: 1000},
		{number: "7.1.5", send: []frame{begin("fragment1"), code(1000, ""), last("fragment2")}, code: 1000},
		{number: "7.1.6", send: []frame{textOf(256 << 10), hello, code(1000, ""), ping("")}, want: []frame{textOf(256 << 10), hello}, code: 1000},
		{number: "7.3.1", send: []frame{closing(nil)}, code: 1005},
		{number: "7.3.2", send: []frame{closing([]byte("a"))}, code: 1002},
		{number: "7.3.3", send: []frame{code(1000, "")}, code: 1000},
		{number: "7.3.4", send: []frame{code(1000, "Hello World!")}, code: 1000},
		{number: "7.3.5", send: []frame{code(1000, string(filler(123)))}, code: 1000},
		{number: "7.3.6", send: []frame{code(1000, string(filler(124)))}, code: 1002},
		{number: "7.5.1", send: []frame{code(1000, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64")}, code: 1007},
	}
	for i, c := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		all = append(all, conformanceCase{number: fmt.Sprintf("7.7.%d", i+1), send: []frame{code(c, "")}, code: c})
	}
	for i, c := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		all = append(all, conformanceCase{number: fmt.Sprintf("7.9.%d", i+1), send: []frame{code(c, "")}, code: 1002})
	}
	for i, c := range []uint16{5000, 65535} {
		all = append(all, conformanceCase{number: fmt.Sprintf("7.13.%d", i+1), send: []frame{code(c, "")}, code: 1002})
	}
	return all
}

// largeCases are 9: messages to 16 MiB, whole, in fragments and in segments, and
// many small ones.
func largeCases() []conformanceCase {
	var all []conformanceCase
	for i, n := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20} {
		all = append(all,
			conformanceCase{number: fmt.Sprintf("9.1.%d", i+1), send: []frame{textOf(n)}, want: []frame{textOf(n)}},
			conformanceCase{number: fmt.Sprintf("9.2.%d", i+1), send: []frame{binaryOf(n)}, want: []frame{binaryOf(n)}})
	}
	whole := filler(4 << 20)
	for i := range 9 { // fragments of 64 octets to 4 MiB
		var pieces []frame
		for piece := range slices.Chunk(whole, 64<<(2*i)) {
			pieces = append(pieces, frame{op: opContinuation, payload: piece})
		}
		pieces[len(pieces)-1].fin = true
		for j, op := range []byte{opText, opBinary} {
			if j == 1 {
				pieces = slices.Clone(pieces)
			}
			pieces[0].op = op
			all = append(all, conformanceCase{
				number: fmt.Sprintf("9.%d.%d", 3+j, i+1), send: pieces,
				want: []frame{{fin: true, op: op, payload: whole}},
			})
		}
	}
	for i, chop := range []int{64, 128, 256, 512, 1 << 10, 2 << 10} {
		n := 1 << 20
		all = append(all,
			conformanceCase{number: fmt.Sprintf("9.5.%d", i+1), send: []frame{textOf(n)}, want: []frame{textOf(n)}, chop: chop},
			conformanceCase{number: fmt.Sprintf("9.6.%d", i+1), send: []frame{binaryOf(n)}, want: []frame{binaryOf(n)}, chop: chop})
	}
	for i, n := range []int{0, 16, 64, 256, 1 << 10, 4 << 10} {
		// A thousand messages. The suite has each wait for the answer to the one
		// before, to take the time; here they come as fast as they can.
		for j, f := range []frame{textOf(n), binaryOf(n)} {
			many := slices.Repeat([]frame{f}, 1000)
			all = append(all, conformanceCase{number: fmt.Sprintf("9.%d.%d", 7+j, i+1), send: many, want: many})
		}
	}
	return all
}

// run sends what the case says and compares what comes back. It returns the
// first difference.
func (c conformanceCase) run(e *end) error {
	sent := make(chan error, 1)
	go func() { sent <- c.write(e) }()
	got, code, err := c.read(e)
	if err != nil {
		e.Close()
		<-sent
		return err
	}
	if err := <-sent; err != nil && c.code == 0 {
		return fmt.Errorf("write: %w", err)
	}
	if c.code == 0 {
		if err := e.sendClose(1000, ""); err != nil {
			return fmt.Errorf("write Close: %w", err)
		}
		if code, err = readClose(e); err != nil {
			return err
		}
		if code != 1000 {
			return fmt.Errorf("Close 1000 was answered with %d", code)
		}
	} else if code != c.code {
		return fmt.Errorf("Close %d, want %d", code, c.code)
	}
	if len(got) != len(c.want) && !(c.early && len(got) < len(c.want)) {
		return fmt.Errorf("%d messages, want %d", len(got), len(c.want))
	}
	// RFC 6455 section 7.1.1: the server ends the connection first.
	if n, err := io.Copy(io.Discard, e); n > 0 || err != nil && c.code == 0 {
		return fmt.Errorf("after the Close: %d bytes, %v", n, err)
	}
	return nil
}

func (c conformanceCase) write(e *end) error {
	size := 0
	for _, f := range c.send {
		size += 14 + len(f.payload)
	}
	wire := make([]byte, 0, size)
	for _, f := range c.send {
		f.masked = true
		wire = f.appendTo(wire)
	}
	if c.chop > 0 {
		size = c.chop
	}
	for piece := range slices.Chunk(wire, max(size, 1)) {
		if _, err := e.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// read takes in messages and control frames and compares them with what is
// wanted, until all are there or the server closes.
func (c conformanceCase) read(e *end) (got []frame, code uint16, err error) {
	for len(got) < len(c.want) || c.code != 0 {
		f, err := recvMessage(e)
		if err != nil {
			return got, 0, fmt.Errorf("after %d messages: %w", len(got), err)
		}
		if f.op == opClose {
			code, err := codeOf(f)
			return got, code, err
		}
		if len(got) == len(c.want) {
			return got, 0, fmt.Errorf("unexpected %v", f)
		}
		want := c.want[len(got)]
		if f.op != want.op || !bytes.Equal(f.payload, want.payload) {
			return got, 0, fmt.Errorf("message %d is %v, want %v", len(got), f, want)
		}
		got = append(got, f)
	}
	return got, 0, nil
}

// recvMessage reads a control frame or a whole message. The echo server does
// not put one into the other.
func recvMessage(e *end) (frame, error) {
	var whole frame
	for {
		f, err := e.recv()
		if err != nil {
			return whole, err
		}
		if f.rsv != 0 {
			return f, fmt.Errorf("reserved bits: %v", f)
		}
		if f.op >= opClose {
			return f, nil
		}
		if f.op != opContinuation {
			whole.op = f.op
		}
		whole.payload = join(whole.payload, f.payload)
		if f.fin {
			whole.fin = true
			return whole, nil
		}
	}
}

// join returns a message with a fragment more. It may keep the fragment.
func join(message, fragment []byte) []byte {
	if len(message) == 0 {
		return fragment
	}
	if len(message)+len(fragment) > cap(message) {
		message = slices.Grow(message, len(message)+len(fragment)) // with append alone large ones are copied often
	}
	return append(message, fragment...)
}

// readClose reads on to the Close and returns its code, 1005 without one.
func readClose(e *end) (uint16, error) {
	for {
		f, err := e.recv()
		if err != nil {
			return 0, fmt.Errorf("no Close: %w", err)
		}
		if f.op == opClose {
			return codeOf(f)
		}
	}
}

func codeOf(f frame) (uint16, error) {
	switch n := len(f.payload); {
	case n == 0:
		return 1005, nil
	case n == 1 || n > 125:
		return 0, fmt.Errorf("Close of %d bytes", n)
	}
	return binary.BigEndian.Uint16(f.payload), nil
}

// conform runs cases against what reaches an echo server, each in a tunnel of
// its own.
func conform(t *testing.T, s *server, cases []conformanceCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.number, func(t *testing.T) {
			e := s.open(t, request{})
			if err := c.run(e); err != nil {
				t.Error(err)
			}
			e.Close()
		})
	}
}

// The cases hold for the echo server by itself: what fails through a proxy is
// the proxy's fault.
func TestConformanceEcho(t *testing.T) {
	b := startBack(t, memnet.Listen(), false, echo)
	conform(t, &server{front: frontH1, l: b.l}, conformanceCases())
}

// Every case through every front, with both modes. The sizes of 9 are in
// TestConformanceLarge.
func TestConformance(t *testing.T) {
	eachPair(t, pairs(false), func(t *testing.T, p pair) {
		if p.tls {
			return // the way to the back end has no part in it
		}
		conform(t, p.start(t, wsproxy.Config{}, echo).server, conformanceCases())
	})
}

func TestConformanceLarge(t *testing.T) {
	cases := largeCases()
	eachPair(t, pairs(false), func(t *testing.T, p pair) {
		if p.tls || p.detach || p.mode != wsproxy.Frames {
			return // TestBulkBothWays has the rest
		}
		conform(t, p.start(t, wsproxy.Config{}, echo).server, cases)
	})
}
