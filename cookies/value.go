package cookies

import (
	"encoding/binary"
	"strings"
	"sync"
	"time"
)

const (
	// headSize is what precedes the payload inside the protection: flags, the
	// time of issue and that of expiry, both in 40 bits of Unix seconds.
	headSize = 1 + 5 + 5

	// leeway is how far the clock of the machine that wrote a value may run ahead.
	leeway = 60

	// maxBinding is what two bytes of length can say.
	maxBinding = 1<<16 - 1

	// maxKept is the size up to which memory is kept for the next value.
	maxKept = 32 << 10
)

// scratch is the memory in which a value is made or taken apart. None of it
// outlives the call.
type scratch struct {
	plain  []byte // head and payload
	sealed []byte // nonce, ciphertext and tag, or plaintext and code
	data   []byte // what is authenticated beside them
	text   []byte // the value
	line   []byte // a Set-Cookie line
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func getScratch() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) free() {
	if cap(s.plain)+cap(s.sealed)+cap(s.data)+cap(s.text)+cap(s.line) <= maxKept {
		scratches.Put(s)
	}
}

// Info says when a value was made and with which key.
type Info struct {
	// IssuedAt is when the value was made, by the clock of the machine that
	// did, in whole seconds.
	IssuedAt time.Time

	// ExpiresAt is the last second in which the value is accepted: the expiry
	// inside it, or IssuedAt and [Config.MaxAge] where that is earlier.
	ExpiresAt time.Time

	// KeyID is the public name of the key: 4 characters, the same in every
	// process and cookie. Counting them shows when an old key has had its day.
	KeyID string

	// NeedsRefresh reports that the value should be written again: its key is
	// no longer the first of [Config.Keys], or, with [Config.Sliding], more
	// than half of its life is over.
	NeedsRefresh bool
}

// opened is a value whose protection held.
type opened struct {
	payload         []byte
	issued, expires int64
	key             *key
	slides          bool   // past half of its life, and Sliding is set
	binding         string // with which it was read from a request
}

func (o opened) info() Info {
	return Info{
		IssuedAt:     time.Unix(o.issued, 0),
		ExpiresAt:    time.Unix(o.expires, 0),
		KeyID:        o.key.id,
		NeedsRefresh: o.slides || o.key.stage == fallback,
	}
}

// textSize is the length of a value with a payload of n bytes.
func (c *core) textSize(n int) int {
	return len(c.ring.prefix) + idSize + 1 + encoding.EncodedLen(headSize+n+c.ring.keys[0].box.overhead())
}

// seal puts the value of the payload in s.plain[headSize:] into s.text, under
// the primary key. Nothing is computed for one that is too large to be kept.
func (c *core) seal(s *scratch, issued, expires int64, binding string) error {
	if c.textSize(len(s.plain)-headSize) > c.capacity {
		return ErrTooLarge
	}
	s.plain[0] = 0
	putUint40(s.plain[1:], issued)
	putUint40(s.plain[6:], expires)
	k := c.ring.keys[0]
	if binding != "" {
		s.data = k.additional(s.data, binding)
		s.sealed = k.box.seal(s.sealed[:0], s.plain, s.data)
	} else {
		s.sealed = k.box.seal(s.sealed[:0], s.plain, k.unbound)
	}
	s.text = append(s.text[:0], c.ring.prefix...)
	s.text = append(s.text, k.id...)
	s.text = append(s.text, '.')
	s.text = appendEncoded(s.text, s.sealed)
	return nil
}

// open takes a value apart. What is wrong with one that is not authentic, it
// does not tell, except that the key is not there.
func (c *core) open(text, binding string) (opened, error) {
	if len(text) > c.capacity {
		return opened{}, ErrInvalid
	}
	text, ok := strings.CutPrefix(text, c.ring.prefix)
	if !ok || len(text) <= idSize || text[idSize] != '.' {
		return opened{}, ErrInvalid
	}
	id, body := text[:idSize], text[idSize+1:]
	k := c.ring.find(id)
	if k == nil {
		if !wellFormed(id) {
			return opened{}, ErrInvalid
		}
		return opened{}, ErrUnknownKey
	}

	s := getScratch()
	defer s.free()
	sealed, ok := appendDecoded(s.sealed[:0], body)
	if !ok {
		return opened{}, ErrInvalid
	}
	s.sealed = sealed
	size := len(sealed) - k.box.overhead()
	if size < headSize {
		return opened{}, ErrInvalid
	}
	data := k.unbound
	if binding != "" {
		s.data = k.additional(s.data, binding)
		data = s.data
	}
	// The codec may keep what it decodes, so this is not scratch.
	plain, err := k.box.open(make([]byte, 0, size), sealed, data)
	if err != nil || len(plain) < headSize || plain[0] != 0 {
		return opened{}, ErrInvalid
	}

	o := opened{payload: plain[headSize:], issued: uint40(plain[1:]), expires: uint40(plain[6:]), key: k}
	now := time.Now().Unix()
	if o.issued > now+leeway {
		return opened{}, ErrInvalid
	}
	o.expires = min(o.expires, o.issued+c.maxAge)
	if now > o.expires {
		return opened{}, ErrExpired
	}
	o.slides = c.sliding && now-o.issued > o.expires-now
	return o, nil
}

// wellFormed reports whether a key could have the id.
func wellFormed(id string) bool {
	var b [idBytes]byte
	_, ok := appendDecoded(b[:0], id)
	return ok
}

func putUint40(b []byte, v int64) {
	b[0] = byte(v >> 32)
	binary.BigEndian.PutUint32(b[1:], uint32(v))
}

func uint40(b []byte) int64 {
	return int64(b[0])<<32 | int64(binary.BigEndian.Uint32(b[1:]))
}
