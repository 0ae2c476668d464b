package wsproxy

import (
	"bytes"
	"errors"

	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sink is a stream that keeps what is written to it and never has anything to
// read.
type sink struct {
	mu     sync.Mutex
	b      bytes.Buffer
	writes int
	closed chan struct{}
	once   sync.Once
	half   bool
}

func newSink() *sink { return &sink{closed: make(chan struct{})} }

func (s *sink) Read([]byte) (int, error) { <-s.closed; return 0, io.EOF }
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.half {
		return 0, errors.New("written after the end")
	}
	s.writes++
	return s.b.Write(p)
}
func (s *sink) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.half = true
	return nil
}
func (s *sink) halfCloses() bool { return true }
func (s *sink) Close() error     { s.once.Do(func() { close(s.closed) }); return nil }
func (s *sink) Abort()           { s.Close() }

func (s *sink) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.b.Bytes())
}

// newTestTunnel is a tunnel between two sinks whose directions are fed by hand.
func newTestTunnel(t testing.TB, cfg Config, extensions ...string) (tn *tunnel, client, backend *sink) {
	t.Helper()
	cfg.Target = "ws://x"
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client, backend = newSink(), newSink()
	tn = newTunnel(p, &Handshake{}, client, &answer{stream: backend, extensions: extensions})
	tn.about.target = p.target
	t.Cleanup(func() { p.clock.remove(tn); tn.stop() })
	return tn, client, backend
}

// feedAll feeds b in pieces of the given lengths, and then the rest.
func feedAll(d *direction, b []byte, pieces ...int) error {
	buf := new(buffer)
	for len(b) > 0 {
		n := len(b)
		if len(pieces) > 0 {
			n, pieces = min(n, pieces[0]), pieces[1:]
		}
		n = min(n, bufferSize)
		copy(buf[room:], b[:n])
		if err := d.feed(buf[:], n); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// build makes a frame with what it is given, legal or not.
func build(fin bool, rsv, op byte, masked bool, payload string) []byte {
	b := []byte{op | rsv<<4}
	if fin {
		b[0] |= 0x80
	}
	n := len(payload)
	switch {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126, byte(n>>8), byte(n))
	default:
		b = append(b, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	if !masked {
		return append(b, payload...)
	}
	b[1] |= 0x80
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	body := []byte(payload)
	xor(body, mask)
	return append(b, body...)
}

// session is a sequence of legal frames with every form of header.
func session(masked bool) []byte {
	var b []byte
	for _, n := range []int{0, 1, 125, 126, 127, 300, 65535, 65536} {
		b = append(b, build(true, 0, opBinary, masked, strings.Repeat("x", n))...)
		b = append(b, build(true, 0, opPing, masked, strings.Repeat("p", min(n, 125)))...)
	}
	b = append(b, build(false, 0, opText, masked, "first")...)
	b = append(b, build(true, 0, opPong, masked, "in between")...)
	b = append(b, build(false, 0, opContinuation, masked, "")...)
	b = append(b, build(true, 0, opContinuation, masked, "last")...)
	return append(b, build(true, 0, opClose, masked, "\x03\xe8bye")...)
}

// Whatever pieces the bytes come in, what leaves is what came, and the counts
// are those of the frames.
func TestEverySplit(t *testing.T) {
	for _, masked := range []bool{true, false} {
		b := session(masked)
		run := func(pieces ...int) {
			tn, client, backend := newTestTunnel(t, Config{})
			d, out := &tn.down, client
			if masked {
				d, out = &tn.up, backend
			}
			d.pong.Store(7) // Pongs are looked at
			if err := feedAll(d, b, pieces...); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.bytes(), b) {
				t.Fatalf("masked %t, pieces %v: other bytes", masked, pieces)
			}
			got := d.traffic()
			want := Traffic{Bytes: uint64(len(b)), Frames: 21, Messages: 9, Pings: 8, Close: CloseFrame{1000, "bye"}}
			if got != want {
				t.Fatalf("masked %t, pieces %v: %+v, want %+v", masked, pieces, got, want)
			}
		}
		run()
		ones := make([]int, 700)
		for i := range ones {
			ones[i] = 1
		}
		run(ones...)
		for n := range 400 {
			run(n + 1)
		}
		for n := len(b) - 60; n < len(b); n++ {
			run(bufferSize, bufferSize, bufferSize, bufferSize, n-4*bufferSize)
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			var pieces []int
			for range 40 {
				pieces = append(pieces, 1+r.IntN(9000))
			}
			run(pieces...)
		}
	}
}

// wsproxy 34, 38 and 40: what may not be sent stops here, at once and with
// nothing of it passed on, and both peers are told with the code.
func TestIllegalFrames(t *testing.T) {
	long := strings.Repeat("x", 126)
	deflate := []string{"permessage-deflate"}
	for _, c := range []struct {
		name       string
		extensions []string
		frames     [][]byte // the last is illegal
		code       int
	}{
		{"reserved opcode 3", nil, [][]byte{build(true, 0, 3, true, "")}, 1002},
		{"reserved opcode 11", nil, [][]byte{build(true, 0, 11, true, "")}, 1002},
		{"long ping", nil, [][]byte{build(true, 0, opPing, true, long)}, 1002},
		{"long close", nil, [][]byte{build(true, 0, opClose, true, long)}, 1002},
		{"fragmented ping", nil, [][]byte{build(false, 0, opPing, true, "")}, 1002},
		{"64 bits of length", nil, [][]byte{{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}}, 1002},
		{"not masked", nil, [][]byte{build(true, 0, opText, false, "x")}, 1002},
		{"rsv1", nil, [][]byte{build(true, 4, opText, true, "x")}, 1002},
		{"rsv2", deflate, [][]byte{build(true, 2, opText, true, "x")}, 1002},
		{"rsv3", deflate, [][]byte{build(true, 1, opText, true, "x")}, 1002},
		{"rsv1 on a later fragment", deflate, [][]byte{build(false, 4, opText, true, "x"), build(true, 4, opContinuation, true, "x")}, 1002},
		{"rsv1 on a ping", deflate, [][]byte{build(true, 4, opPing, true, "x")}, 1002},
		{"continuation of nothing", nil, [][]byte{build(true, 0, opContinuation, true, "x")}, 1002},
		{"text in a message", nil, [][]byte{build(false, 0, opText, true, "x"), build(true, 0, opText, true, "x")}, 1002},
		{"close of one byte", nil, [][]byte{build(true, 0, opClose, true, "\x03")}, 1002},
		{"close 1005", nil, [][]byte{build(true, 0, opClose, true, "\x03\xed")}, 1002},
		{"close 999", nil, [][]byte{build(true, 0, opClose, true, "\x03\xe7")}, 1002},
		{"close 2999", nil, [][]byte{build(true, 0, opClose, true, "\x0b\xb7")}, 1002},
		{"close 5000", nil, [][]byte{build(true, 0, opClose, true, "\x13\x88")}, 1002},
		{"close with a broken reason", nil, [][]byte{build(true, 0, opClose, true, "\x03\xe8\xff")}, 1007},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tn, client, backend := newTestTunnel(t, Config{}, c.extensions...)
				legal := slices.Concat(c.frames[:len(c.frames)-1]...)
				all := slices.Concat(c.frames...)
				if err := feedAll(&tn.up, append(all, build(true, 0, opText, true, "after")...)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				toBackend, ok := bytes.CutPrefix(backend.bytes(), legal)
				if !ok {
					t.Fatalf("the back end got %q", backend.bytes())
				}
				wantClose(t, toBackend, true, c.code)
				wantClose(t, client.bytes(), false, c.code)
				if s := tn.stats(); s.End != EndProtocol || s.Sent.Code != c.code {
					t.Errorf("%v, %+v", s.End, s.Sent)
				}
			})
		})
	}
	t.Run("masked by the back end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tn, client, backend := newTestTunnel(t, Config{})
			feedAll(&tn.down, build(true, 0, opText, true, "x"))
			synctest.Wait()
			wantClose(t, client.bytes(), false, 1002)
			wantClose(t, backend.bytes(), true, 1002)
		})
	})
	t.Run("allowed", func(t *testing.T) {
		tn, _, backend := newTestTunnel(t, Config{}, "permessage-deflate")
		b := build(true, 4, opText, true, "x")
		feedAll(&tn.up, b)
		if !bytes.Equal(backend.bytes(), b) {
			t.Error("RSV1 with permessage-deflate did not pass")
		}
		tn, _, backend = newTestTunnel(t, Config{}, "x-own")
		b = slices.Concat(build(true, 3, opText, true, "x"), build(true, 0, 0x3, true, "x"), build(true, 0, 0xb, true, "x"))
		feedAll(&tn.up, b)
		if !bytes.Equal(backend.bytes(), b) {
			t.Error("what an unknown extension may define did not pass")
		}
	})
}

// wsproxy 34: a length that is not in its shortest form is malformed, of whatever
// frame and whatever pieces it comes in. Of a Close frame, or of a Pong that may be
// ours, it would also be more than is held back of one.
func TestLongForms(t *testing.T) {
	try := func(t *testing.T, extension string, long []byte, split int) {
		synctest.Test(t, func(t *testing.T) {
			tn, client, backend := newTestTunnel(t, Config{}, extension)
			tn.up.pong.Store(7)
			if err := feedAll(&tn.up, long, split); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			wantClose(t, backend.bytes(), true, 1002)
			wantClose(t, client.bytes(), false, 1002)
		})
	}
	for _, extension := range []string{"permessage-deflate", "x-own"} {
		for _, op := range []byte{opText, opClose, opPing, opPong} {
			short := build(true, 0, op, true, "\x03\xe8"+strings.Repeat("x", maxControl-2))
			for _, head := range []string{"\xfe\x00", "\xff\x00\x00\x00\x00\x00\x00\x00"} {
				long := slices.Concat(short[:1], []byte(head), []byte{maxControl}, short[2:])
				for split := range long {
					try(t, extension, long, split+1)
				}
			}
		}
	}
	try(t, "", []byte("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff\x01\x02\x03\x04"), 9)
}

func wantClose(t *testing.T, b []byte, masked bool, code int) {
	t.Helper()
	h, n := parseHeader(b)
	if n == 0 || h.op != opClose || h.masked != masked || len(b) != n+int(h.length) {
		t.Fatalf("no Close frame and nothing after it: %q", b)
	}
	if f, bad := parseClose(unmask(&h, b[n:])); bad != 0 || f.Code != code {
		t.Errorf("close code %d, want %d", f.Code, code)
	}
}

// wsproxy 38: codes that are sent by nobody.
func TestValidCode(t *testing.T) {
	for code := range 70000 {
		want := code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006 || code >= 3000 && code < 5000
		if validCode(code) != want {
			t.Errorf("%d: %t", code, !want)
		}
	}
	if validReason(strings.Repeat("x", 124)) || !validReason(strings.Repeat("x", 123)) || validReason("\xff") {
		t.Error("reasons")
	}
}

// wsproxy 35: over the limit is known from the header, and nothing of the frame
// goes on.
func TestSizeLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits Limits
		pass   []byte
		fail   []byte
	}{
		{"frame", Limits{Frame: 10}, build(true, 0, opText, true, "0123456789"), build(true, 0, opText, true, "0123456789a")},
		{"header of a frame alone", Limits{Frame: 10}, nil, build(true, 0, opBinary, true, strings.Repeat("x", 70000))[:14]},
		{"message", Limits{Message: 10}, slices.Concat(build(false, 0, opText, true, "01234"), build(true, 0, opPing, true, "0123456789ab"),
			build(false, 0, opContinuation, true, "56789")), build(true, 0, opContinuation, true, "a")},
		{"two messages", Limits{Message: 10}, slices.Concat(build(true, 0, opText, true, "0123456789"), build(true, 0, opText, true, "0123456789")),
			build(true, 0, opText, true, "0123456789a")},
		{"sum beyond 63 bits", Limits{Message: 1 << 40}, build(false, 0, opText, true, "x"),
			[]byte{0x80, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tn, client, backend := newTestTunnel(t, Config{Limits: c.limits})
				feedAll(&tn.up, c.pass)
				if !bytes.Equal(backend.bytes(), c.pass) {
					t.Fatal("what is within the limit did not pass")
				}
				feedAll(&tn.up, c.fail)
				synctest.Wait()
				wantClose(t, backend.bytes()[len(c.pass):], true, 1009)
				wantClose(t, client.bytes(), false, 1009)
				if s := tn.stats(); s.End != EndTooLarge {
					t.Error(s.End)
				}
			})
		})
	}
}

// wsproxy 36: a Close of ours waits for the boundary of the frame, not of the
// message, and nothing follows it. It is masked towards the back end only.
func TestCloseAtBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn, client, backend := newTestTunnel(t, Config{})
		first := build(false, 0, opText, true, strings.Repeat("x", 1000))
		second := build(true, 0, opContinuation, true, "rest")
		feedAll(&tn.up, first[:500])
		tn.shut(EndDrained, CloseFrame{1012, "restart"}, CloseFrame{1001, "restart"})
		synctest.Wait()
		if !bytes.Equal(backend.bytes(), first[:500]) {
			t.Fatal("something was put into a frame")
		}
		wantClose(t, client.bytes(), false, 1012)
		feedAll(&tn.up, slices.Concat(first[500:], second, second))
		rest, ok := bytes.CutPrefix(backend.bytes(), first)
		if !ok {
			t.Fatal("the frame under way is not whole")
		}
		wantClose(t, rest, true, 1001)
		// frames 39: the peers' own Close frames end it, and the first reason stays.
		if err := feedAll(&tn.up, build(true, 0, opClose, true, "\x03\xe8")); err != nil {
			t.Error(err) // the second text was illegal, so nothing is read any more
		}
		if s := tn.stats(); s.End != EndDrained || s.Sent != (CloseFrame{1012, "restart"}) {
			t.Errorf("%v %+v", s.End, s.Sent)
		}
	})
}

// wsproxy 37: our ping's Pong is taken out wherever it is split; others pass.
func TestPongs(t *testing.T) {
	const id = 0x0102030405060708
	ours := build(true, 0, opPong, true, "\x01\x02\x03\x04\x05\x06\x07\x08")
	other := build(true, 0, opPong, true, "\x01\x02\x03\x04\x05\x06\x07\x09")
	ping := build(true, 0, opPing, true, "\x01\x02\x03\x04\x05\x06\x07\x08")
	text := build(true, 0, opText, true, "text")
	for split := range len(ours) + len(text) {
		tn, _, backend := newTestTunnel(t, Config{})
		tn.up.pong.Store(id)
		feedAll(&tn.up, slices.Concat(other, ping))
		if tn.up.pong.Load() == 0 {
			t.Fatal("another Pong counted")
		}
		feedAll(&tn.up, slices.Concat(text, ours), split+1)
		feedAll(&tn.up, slices.Concat(ours, text)) // unsolicited now
		if want := slices.Concat(other, ping, text, ours, text); !bytes.Equal(backend.bytes(), want) {
			t.Fatalf("split at %d: %q", split, backend.bytes())
		}
		if tn.up.pong.Load() != 0 {
			t.Fatal("our Pong did not count")
		}
	}
}

// Frames of ours come between frames of the peer while it writes without end.
func TestPutUnderLoad(t *testing.T) {
	tn, client, _ := newTestTunnel(t, Config{})
	frame := build(true, 0, opBinary, false, strings.Repeat("x", 3000))
	var wg sync.WaitGroup
	wg.Go(func() {
		b := bytes.Repeat(frame, 200)
		pieces := make([]int, 0, 200)
		for i := range 200 {
			pieces = append(pieces, 1000+i*17)
		}
		feedAll(&tn.down, b, pieces...)
	})
	for i := range 100 {
		wg.Go(func() { tn.down.putPing(uint64(i + 1)) })
	}
	wg.Wait()
	pings, frames := 0, 0
	for b := client.bytes(); len(b) > 0; {
		h, n := parseHeader(b)
		if n == 0 || len(b) < n+int(h.length) {
			t.Fatal("not whole frames")
		}
		switch {
		case h.op == opPing && h.length == 8 && !h.masked:
			pings++
		case h.op == opBinary && h.length == 3000:
			frames++
		default:
			t.Fatalf("%+v", h)
		}
		b = b[n+int(h.length):]
	}
	if pings != 100 || frames != 200 {
		t.Errorf("%d pings, %d frames", pings, frames)
	}
}

// One chunk of whole frames is one write, and nothing is allocated for it.
func TestPassAllocates(t *testing.T) {
	tn, _, _ := newTestTunnel(t, Config{})
	tn.backend.stream = discard{}
	b := bytes.Repeat(build(true, 0, opText, true, "a short message"), 50)
	buf := new(buffer)
	copy(buf[room:], b)
	if n := testing.AllocsPerRun(100, func() { tn.up.feed(buf[:], len(b)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	tn, _, backend := newTestTunnel(t, Config{})
	feedAll(&tn.up, b)
	if backend.writes != 1 {
		t.Errorf("%d writes", backend.writes)
	}
}

type discard struct{ *sink }

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
func (discard) Abort()                      {}

// The property: what is let through is a prefix of what came, all of it if the
// frames are legal, in the judgement of a reader that holds whole frames; with
// our Close frame after it if they are not.
func FuzzFrames(f *testing.F) {
	f.Add(session(true), 1, true)
	f.Add(session(false), 3000, false)
	f.Add(build(true, 0, 3, true, "x"), 2, true)
	f.Add(slices.Concat([]byte{0x88, 0xff, 0, 0, 0, 0, 0, 0, 0, 125, 1, 2, 3, 4}, make([]byte, 125)), 1, true)
	f.Add(slices.Concat(build(false, 0, opText, true, "x"), build(true, 0, opText, true, "x")), 5, true)
	f.Fuzz(func(t *testing.T, b []byte, piece int, masked bool) {
		if len(b) > 1<<18 {
			return
		}
		tn, client, backend := newTestTunnel(t, Config{Limits: Limits{Frame: 1 << 20}})
		d, out := &tn.down, client
		if masked {
			d, out = &tn.up, backend
		}
		pieces := make([]int, 0, 64)
		for range 64 {
			pieces = append(pieces, piece%5000+5001)
		}
		if piece > 0 && piece < 20 {
			for i := range pieces {
				pieces[i] = piece
			}
		}
		if err := feedAll(d, b, pieces...); err != nil {
			t.Fatal(err)
		}
		legal, ok := legalPrefix(b, masked)
		if !ok {
			// Our Close comes from another goroutine.
			for deadline := time.Now().Add(10 * time.Second); len(out.bytes()) <= legal; {
				if time.Now().After(deadline) {
					t.Fatal("no Close frame")
				}
				runtime.Gosched()
			}
		}
		got := out.bytes()
		if len(got) < legal || !bytes.Equal(got[:legal], b[:legal]) {
			t.Fatalf("passed %d bytes, want %d of %d", len(got), legal, len(b))
		}
		if h, n := parseHeader(got[legal:]); ok && len(got) > legal || !ok && (n == 0 || h.op != opClose) {
			t.Fatalf("after the legal part: %q", got[legal:])
		}
	})
}

// legalPrefix returns how much of b may pass, and whether what follows is
// incomplete or over and not illegal.
func legalPrefix(b []byte, masked bool) (n int, ok bool) {
	inMessage := false
	for at := 0; ; {
		if at == len(b) {
			return at, true
		}
		h, size := parseHeader(b[at:])
		if size == 0 {
			return at, true
		}
		control := h.op >= 8
		long := b[at+1]&127 == 126 && b[at+2] == 0 && b[at+3] < 126 ||
			b[at+1]&127 == 127 && bytes.Equal(b[at+2:at+8], make([]byte, 6))
		if long || h.masked != masked || h.rsv != 0 || h.length>>63 != 0 || h.op > 10 || h.op > 2 && h.op < 8 ||
			control && (!h.fin || h.length > 125) || !control && (h.op == 0) != inMessage || h.length > 1<<20 {
			return at, false
		}
		if !control {
			inMessage = !h.fin
		}
		end := at + size + int(h.length)
		if end > len(b) {
			if h.op == opClose {
				return at, true
			}
			return len(b), true
		}
		if h.op == opClose {
			_, code := parseClose(unmask(&h, b[at+size:end]))
			if code != 0 {
				return at, false
			}
			return end, true
		}
		at = end
	}
}

// However quickly one peer answers our Close frame, the other gets ours and not
// that answer, and the tunnel has its end.
func TestQuickAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn, client, backend := newTestTunnel(t, Config{})
		tn.shut(EndDrained, CloseFrame{1012, "restart"}, CloseFrame{1001, "restart"})
		if err := feedAll(&tn.down, build(true, 0, opClose, false, "\x03\xe9")); err != errOver {
			t.Fatal(err)
		}
		synctest.Wait()
		wantClose(t, client.bytes(), false, 1012)
		wantClose(t, backend.bytes(), true, 1001)
	})
}
