package forwardauth

import (
	"context"
	"encoding/binary"
	"net/http"
	"sync"
)

// Identity is what the service has said about who sent a request.
type Identity struct {
	// Header has the fields of Config.CopyHeaders, by their To names. It is the
	// request's own copy, apart from the fields in the request's header.
	Header http.Header

	// Cached says that the decision came from the cache.
	Cached bool
}

// From returns the identity in ctx, and whether m itself has allowed the
// request. It is false for one that was skipped. Code that does not care which
// instance it was uses [FromContext].
func (m *Middleware) From(ctx context.Context) (Identity, bool) {
	s, ok := ctx.Value(m).(*state)
	if !ok {
		return Identity{}, false
	}
	return s.identity(), true
}

// FromContext returns the identity in ctx, and whether there is one. With
// several instances of the middleware that is the innermost that has allowed
// the request.
func FromContext(ctx context.Context) (Identity, bool) {
	s, ok := ctx.Value(stateKey{}).(*state)
	if !ok {
		return Identity{}, false
	}
	return s.identity(), true
}

// NewContext returns a copy of ctx that carries id, for tests of handlers that
// call [FromContext].
func NewContext(ctx context.Context, id Identity) context.Context {
	return &state{Context: ctx, id: id, given: true}
}

// state is the context of a request, and that request, to save an allocation.
type state struct {
	context.Context
	request http.Request

	owner *Middleware // nil for a request that was skipped, and for NewContext
	found identity    // by the owner
	made  sync.Once   // of id from found
	id    Identity
	given bool // by NewContext
}

type stateKey struct{}

// Value returns the state itself for the package's key and for the owner's.
func (s *state) Value(key any) any {
	switch key := key.(type) {
	case stateKey:
		if s.owner != nil || s.given {
			return s
		}
	case *Middleware:
		if key == s.owner {
			return s
		}
	}
	return s.Context.Value(key)
}

// identity returns the Identity, which is made when it is asked for first: most
// handlers read the fields of the request, or none.
func (s *state) identity() Identity {
	if !s.given {
		s.made.Do(func() {
			s.id = Identity{Header: make(http.Header, len(s.owner.copies)), Cached: s.found.cached}
			s.owner.present(s.id.Header, &s.found)
		})
	}
	return s.id
}

// identity is an Identity as it was found: in the header of an answer or, if
// cached, in an entry of the cache. It is only read.
type identity struct {
	header http.Header // of the answer, by the From names of CopyHeaders
	entry  string      // what appendIdentity has made of one
	cached bool
	values int // how many there are
}

// identified returns what an allowing answer says.
func (m *Middleware) identified(a *answer) identity {
	id := identity{header: a.header}
	for i := range m.copies {
		id.values += len(a.header[m.copies[i].from])
	}
	return id
}

// present adds the fields of id to h, in slices of h's own.
func (m *Middleware) present(h http.Header, id *identity) {
	if id.values == 0 {
		return
	}
	all := make([]string, 0, id.values)
	rest := id.entry
	for i := range m.copies {
		from := len(all)
		if id.cached {
			all, rest = cutValues(all, rest)
		} else {
			all = append(all, id.header[m.copies[i].from]...)
		}
		if len(all) > from {
			h[m.copies[i].to] = all[from:len(all):len(all)]
		}
	}
}

// appendIdentity appends id to an entry of the cache: for each CopyHeaders the
// number of values, and the values.
func (m *Middleware) appendIdentity(b []byte, id *identity) []byte {
	for i := range m.copies {
		values := id.header[m.copies[i].from]
		b = binary.AppendUvarint(b, uint64(len(values)))
		for _, v := range values {
			b = binary.AppendUvarint(b, uint64(len(v)))
			b = append(b, v...)
		}
	}
	return b
}

// readIdentity is the inverse of appendIdentity. A MAC vouches for what it
// reads, and yet it trusts no length.
func (m *Middleware) readIdentity(entry string) (identity, bool) {
	id := identity{entry: entry, cached: true}
	rest := entry
	for range m.copies {
		n, size := uvarint(rest)
		if rest = rest[size:]; size == 0 || n > uint64(len(rest)) {
			return identity{}, false
		}
		id.values += int(n)
		for range n {
			length, size := uvarint(rest)
			if rest = rest[size:]; size == 0 || length > uint64(len(rest)) {
				return identity{}, false
			}
			rest = rest[length:]
		}
	}
	return id, rest == ""
}

// cutValues appends the values of one field at the beginning of an entry that
// readIdentity has accepted, and returns what follows.
func cutValues(values []string, entry string) ([]string, string) {
	n, size := uvarint(entry)
	entry = entry[size:]
	for range n {
		length, size := uvarint(entry)
		entry = entry[size:]
		values = append(values, entry[:length])
		entry = entry[length:]
	}
	return values, entry
}

// uvarint is binary.Uvarint of a string; its size is 0 where there is none.
func uvarint(s string) (v uint64, size int) {
	for i := range min(len(s), binary.MaxVarintLen32) {
		v |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
