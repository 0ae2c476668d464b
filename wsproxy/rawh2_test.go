package wsproxy_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The frames of HTTP/2 (RFC 9113 section 6) that the tests use.
const (
	h2Data         = 0
	h2Headers      = 1
	h2RSTStream    = 3
	h2Settings     = 4
	h2Ping         = 6
	h2GoAway       = 7
	h2WindowUpdate = 8
	h2Continuation = 9

	h2FlagEnd        = 1 // END_STREAM, and ACK of SETTINGS and PING
	h2FlagEndHeaders = 4
	h2FlagPadded     = 8
	h2FlagPriority   = 32

	h2NoError       = 0
	h2ProtocolError = 1
	h2InternalError = 2
	h2Cancel        = 8

	h2SettingTableSize     = 1
	h2SettingInitialWindow = 4
	h2SettingMaxFrame      = 5
	h2SettingConnect       = 8
)

// h2Client is the client's end of an HTTP/2 connection, frame by frame. It
// does what net/http's client refuses to: extended CONNECT, well formed or
// not, half-close, resets with a chosen code, and a stream that is not read.
//
// What is received on a stream is acknowledged to the peer only when the test
// reads it, so a stream that is not read stops its sender after one window.
// The connection's own window never runs out.
type h2Client struct {
	conn net.Conn

	writing sync.Mutex // held for one frame

	mu      sync.Mutex
	changed *sync.Cond
	peer    map[uint16]uint32 // the server's settings, nil before they came
	streams map[uint32]*h2Stream
	nextID  uint32
	window  int64 // what may be sent on the connection
	credit  int   // what a stream receives before it is read
	pongs   int
	away    bool // GOAWAY was received
	err     error
	done    chan struct{} // closed when nothing more is read
}

// h2Config is how a client introduces itself.
type h2Config struct {
	// Window is the number of bytes that a stream receives before they are
	// read; zero means 65,535, the protocol's default.
	Window uint32
	// Connect sends SETTINGS_ENABLE_CONNECT_PROTOCOL, as a client need not.
	Connect bool
}

// newH2Client is openH2 for a test, which closes the connection at its end.
func newH2Client(t testing.TB, conn net.Conn, cfg h2Config) *h2Client {
	t.Helper()
	c, err := openH2(conn, cfg)
	t.Cleanup(c.Close)
	if err != nil {
		t.Fatalf("HTTP/2 preface: %v", err)
	}
	return c
}

// openH2 sends the preface over conn, which is past its TLS handshake, and
// starts reading. The client must be closed, also with an error.
func openH2(conn net.Conn, cfg h2Config) (*h2Client, error) {
	c := &h2Client{
		conn: conn, streams: make(map[uint32]*h2Stream), nextID: 1,
		window: 65535, credit: 65535, done: make(chan struct{}),
	}
	c.changed = sync.NewCond(&c.mu)
	// Without a dynamic table the decoder below needs no state.
	settings := binary.BigEndian.AppendUint16(nil, h2SettingTableSize)
	settings = binary.BigEndian.AppendUint32(settings, 0)
	if cfg.Window > 0 {
		c.credit = int(cfg.Window)
		settings = binary.BigEndian.AppendUint16(settings, h2SettingInitialWindow)
		settings = binary.BigEndian.AppendUint32(settings, cfg.Window)
	}
	if cfg.Connect {
		settings = binary.BigEndian.AppendUint16(settings, h2SettingConnect)
		settings = binary.BigEndian.AppendUint32(settings, 1)
	}
	// The reader acknowledges the server's settings, and so starts when ours
	// are out.
	defer func() { go c.read() }()
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		return c, err
	}
	return c, errors.Join(
		c.write(h2Settings, 0, 0, settings),
		c.write(h2WindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, 1<<30)))
}

// Close closes the connection and waits until its reader has ended.
func (c *h2Client) Close() {
	c.conn.Close()
	<-c.done
}

// Settings waits for the server's settings.
func (c *h2Client) Settings() (map[uint16]uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.peer == nil && c.err == nil {
		c.changed.Wait()
	}
	return c.peer, c.err
}

// Ping waits for the answer to a PING. All that the client had sent before has
// been received by then.
func (c *h2Client) Ping() error {
	c.mu.Lock()
	want := c.pongs + 1
	c.mu.Unlock()
	if err := c.write(h2Ping, 0, 0, make([]byte, 8)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.pongs < want && c.err == nil {
		c.changed.Wait()
	}
	return c.err
}

// GoneAway reports whether the server has sent GOAWAY.
func (c *h2Client) GoneAway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

// write sends one frame.
func (c *h2Client) write(kind, flags byte, id uint32, payload []byte) error {
	frame := make([]byte, 9, 9+len(payload))
	frame[0], frame[1], frame[2] = byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload))
	frame[3], frame[4] = kind, flags
	binary.BigEndian.PutUint32(frame[5:], id)
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.conn.Write(append(frame, payload...))
	return err
}

// Request opens a stream with header fields in the order given, pseudo fields
// first, and without END_STREAM.
func (c *h2Client) Request(fields ...[2]string) (*h2Stream, error) {
	var block []byte
	for _, f := range fields {
		block = appendField(block, f[0], f[1])
	}
	c.mu.Lock()
	for c.peer == nil && c.err == nil {
		c.changed.Wait()
	}
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	s := &h2Stream{c: c, id: c.nextID, window: 65535}
	if w, ok := c.peer[h2SettingInitialWindow]; ok {
		s.window = int64(w)
	}
	c.nextID += 2
	c.streams[s.id] = s
	c.mu.Unlock()
	return s, c.write(h2Headers, h2FlagEndHeaders, s.id, block)
}

// connectFields are those of a WebSocket handshake by RFC 8441.
func connectFields(scheme, authority, path string, more ...[2]string) [][2]string {
	return append([][2]string{
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", scheme},
		{":authority", authority}, {":path", path}, {"sec-websocket-version", "13"},
	}, more...)
}

// read takes in frames until the connection ends.
func (c *h2Client) read() {
	defer close(c.done)
	err := c.readFrames()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, s := range c.streams {
		s.fail(err)
	}
	c.changed.Broadcast()
}

func (c *h2Client) readFrames() error {
	var block []byte // of a header block under way
	var blockFlags byte
	r := bufio.NewReaderSize(c.conn, 32<<10)
	taken := 0 // bytes that the connection's window is to be widened by
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(r, head); err != nil {
			return err
		}
		p := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, p); err != nil {
			return err
		}
		kind, flags, id := head[3], head[4], binary.BigEndian.Uint32(head[5:])&(1<<31-1)
		if kind == h2Headers || kind == h2Data {
			if flags&h2FlagPadded != 0 {
				p = p[1 : len(p)-int(p[0])]
			}
		}
		switch kind {
		case h2Settings:
			if flags&h2FlagEnd == 0 {
				c.settings(p)
				if err := c.write(h2Settings, h2FlagEnd, 0, nil); err != nil {
					return err
				}
			}
		case h2Ping:
			if flags&h2FlagEnd == 0 {
				if err := c.write(h2Ping, h2FlagEnd, 0, p); err != nil {
					return err
				}
			} else {
				c.update(func() { c.pongs++ })
			}
		case h2Headers:
			if flags&h2FlagPriority != 0 {
				p = p[5:]
			}
			block, blockFlags = p, flags
		case h2Continuation:
			block = append(block, p...)
			flags |= blockFlags & h2FlagEnd
		case h2WindowUpdate:
			n := int64(binary.BigEndian.Uint32(p) & (1<<31 - 1))
			c.update(func() {
				if id == 0 {
					c.window += n
				} else if s := c.streams[id]; s != nil {
					s.window += n
				}
			})
		case h2GoAway:
			c.update(func() { c.away = true })
		case h2RSTStream:
			c.onStream(id, func(s *h2Stream) { s.fail(h2Reset(binary.BigEndian.Uint32(p))) })
		case h2Data:
			if taken += len(p); taken >= 1<<20 { // far from the end of the window
				if err := c.write(h2WindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(taken))); err != nil {
					return err
				}
				taken = 0
			}
			c.onStream(id, func(s *h2Stream) {
				s.data = append(s.data, p...)
				s.received += len(p)
				s.ended = s.ended || flags&h2FlagEnd != 0
			})
		}
		if (kind == h2Headers || kind == h2Continuation) && flags&h2FlagEndHeaders != 0 {
			fields, err := decodeFields(block)
			if err != nil {
				return err
			}
			c.onStream(id, func(s *h2Stream) {
				s.fields = append(s.fields, fields)
				s.ended = s.ended || flags&h2FlagEnd != 0
			})
		}
	}
}

func (c *h2Client) settings(p []byte) {
	c.update(func() {
		if c.peer == nil {
			c.peer = make(map[uint16]uint32)
		}
		for ; len(p) >= 6; p = p[6:] {
			c.peer[binary.BigEndian.Uint16(p)] = binary.BigEndian.Uint32(p[2:])
		}
	})
}

// update changes the state under the lock and wakes who waits for it.
func (c *h2Client) update(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.changed.Broadcast()
}

func (c *h2Client) onStream(id uint32, f func(*h2Stream)) {
	c.update(func() {
		if s := c.streams[id]; s != nil {
			f(s)
		}
	})
}

// h2Reset is the error of a stream that the server has reset, with its code.
type h2Reset uint32

func (e h2Reset) Error() string { return fmt.Sprintf("the stream was reset with code %d", uint32(e)) }

// h2Stream is one stream of an h2Client.
type h2Stream struct {
	c  *h2Client
	id uint32

	// Under c.mu.
	window   int64
	fields   [][][2]string // the header blocks that came
	data     []byte        // received and not read
	received int           // bytes of DATA in all
	read     int           // bytes that were read and not acknowledged
	ended    bool          // END_STREAM was received
	err      error
}

func (s *h2Stream) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// Response waits for the final response.
func (s *h2Stream) Response() (status int, header http.Header, err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for seen := 0; ; s.c.changed.Wait() {
		for ; seen < len(s.fields); seen++ {
			header = make(http.Header)
			for _, f := range s.fields[seen] {
				if f[0] == ":status" {
					status, _ = strconv.Atoi(f[1])
				} else {
					header.Add(f[0], f[1])
				}
			}
			if status >= 200 {
				return status, header, nil
			}
		}
		if s.err != nil {
			return 0, nil, s.err
		}
	}
}

// Read returns what was received, and acknowledges it when that was half of the
// stream's window.
func (s *h2Stream) Read(p []byte) (int, error) {
	s.c.mu.Lock()
	for len(s.data) == 0 && !s.ended && s.err == nil {
		s.c.changed.Wait()
	}
	if len(s.data) == 0 {
		defer s.c.mu.Unlock()
		if s.ended {
			return 0, io.EOF
		}
		return 0, s.err
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	s.read += n
	due := s.read
	if s.ended || 2*due < s.c.credit {
		s.c.mu.Unlock()
		return n, nil
	}
	s.read = 0
	s.c.mu.Unlock()
	// The stream may be reset at the server by now; then this is ignored, and
	// a lost connection shows at the next Read.
	_ = s.c.write(h2WindowUpdate, 0, s.id, binary.BigEndian.AppendUint32(nil, uint32(due)))
	return n, nil
}

// Write waits until the windows have let all of p pass.
func (s *h2Stream) Write(p []byte) (int, error) {
	for sent := 0; ; {
		s.c.mu.Lock()
		for min(s.window, s.c.window) <= 0 && s.err == nil {
			s.c.changed.Wait()
		}
		if s.err != nil {
			defer s.c.mu.Unlock()
			return sent, s.err
		}
		n := int(min(s.window, s.c.window, 16<<10, int64(len(p)-sent)))
		s.window -= int64(n)
		s.c.window -= int64(n)
		s.c.mu.Unlock()
		if err := s.c.write(h2Data, 0, s.id, p[sent:sent+n]); err != nil {
			return sent, err
		}
		if sent += n; sent == len(p) {
			return sent, nil
		}
	}
}

// CloseWrite sends END_STREAM.
func (s *h2Stream) CloseWrite() error { return s.c.write(h2Data, h2FlagEnd, s.id, nil) }

// Reset sends RST_STREAM; reading and writing end here as well.
func (s *h2Stream) Reset(code uint32) error {
	s.c.update(func() { s.fail(errors.New("reset by this end")) })
	return s.c.write(h2RSTStream, 0, s.id, binary.BigEndian.AppendUint32(nil, code))
}

// Abort resets the stream as a browser does for a page that is closed.
func (s *h2Stream) Abort() error { return s.Reset(h2Cancel) }

// Close is Abort; the end of the test closes the connection.
func (s *h2Stream) Close() error { return s.Abort() }

// Err is the reset or the loss of the connection that ended the stream.
func (s *h2Stream) Err() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.err
}

// Received is the number of bytes of DATA that have come, read or not.
func (s *h2Stream) Received() int {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.received
}

// appendField writes a header field as a literal without indexing, name and
// value without Huffman coding (RFC 7541 section 6.2.2).
func appendField(b []byte, name, value string) []byte {
	b = append(b, 0)
	for _, s := range []string{name, value} {
		b = appendInt(b, 0, 7, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// appendInt is the integer of RFC 7541 section 5.1.
func appendInt(b []byte, first byte, prefix int, v uint64) []byte {
	limit := uint64(1)<<prefix - 1
	if v < limit {
		return append(b, first|byte(v))
	}
	b = append(b, first|byte(limit))
	for v -= limit; v >= 128; v >>= 7 {
		b = append(b, byte(v)|128)
	}
	return append(b, byte(v))
}

var errHPACK = errors.New("malformed header block")

// readInt is the reverse of appendInt.
func readInt(b []byte, prefix int) (v uint64, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errHPACK
	}
	limit := uint64(1)<<prefix - 1
	v, b = uint64(b[0])&limit, b[1:]
	if v < limit {
		return v, b, nil
	}
	for shift := 0; len(b) > 0 && shift < 56; shift += 7 {
		v += uint64(b[0]&127) << shift
		last := b[0] < 128
		if b = b[1:]; last {
			return v, b, nil
		}
	}
	return 0, nil, errHPACK
}

func readText(b []byte) (s string, rest []byte, err error) {
	if len(b) == 0 {
		return "", nil, errHPACK
	}
	coded := b[0]&128 != 0
	n, b, err := readInt(b, 7)
	if err != nil || n > uint64(len(b)) {
		return "", nil, errHPACK
	}
	if !coded {
		return string(b[:n]), b[n:], nil
	}
	s, err = huffman(b[:n])
	return s, b[n:], err
}

// decodeFields reads a header block of a peer that was told to keep no
// dynamic table (RFC 7541 section 6).
func decodeFields(b []byte) (fields [][2]string, err error) {
	for len(b) > 0 {
		var index uint64
		var name, value string
		switch {
		case b[0]&128 != 0: // indexed
			if index, b, err = readInt(b, 7); err != nil || index == 0 || index > uint64(len(staticTable)) {
				return nil, errHPACK
			}
			fields = append(fields, staticTable[index-1])
			continue
		case b[0]&32 != 0 && b[0]&64 == 0: // table size
			if _, b, err = readInt(b, 5); err != nil {
				return nil, err
			}
			continue
		case b[0]&64 != 0: // literal with indexing, into a table without room
			index, b, err = readInt(b, 6)
		default: // literal without indexing, or never indexed
			index, b, err = readInt(b, 4)
		}
		if err != nil || index > uint64(len(staticTable)) {
			return nil, errHPACK
		}
		if index > 0 {
			name = staticTable[index-1][0]
		} else if name, b, err = readText(b); err != nil {
			return nil, err
		}
		if value, b, err = readText(b); err != nil {
			return nil, err
		}
		fields = append(fields, [2]string{name, value})
	}
	return fields, nil
}

// huffman decodes the string coding of RFC 7541 section 5.2. The code is
// canonical, so the lengths alone give it: shorter codes first, and those of
// one length in the order of their symbols.
func huffman(b []byte) (string, error) {
	var out strings.Builder
	var code, first uint32 // first is the first code of the length reached
	var length byte
	for _, octet := range b {
		for bit := 7; bit >= 0; bit-- {
			code = code<<1 | uint32(octet>>bit&1)
			length++
			first <<= 1
			n := uint32(0)
			for symbol, l := range huffmanLengths {
				if l != length {
					continue
				}
				if first+n == code {
					out.WriteByte(byte(symbol))
					code, first, length = 0, 0, 0
					break
				}
				n++
			}
			if length > 0 {
				first += n
			}
			if length > 30 {
				return "", errHPACK
			}
		}
	}
	if length > 7 {
		return "", errHPACK // the padding is less than an octet
	}
	return out.String(), nil
}

// huffmanLengths are the code lengths of RFC 7541 appendix B.
var huffmanLengths = [256]byte{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

// staticTable is RFC 7541 appendix A.
var staticTable = [...][2]string{
	{":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}
