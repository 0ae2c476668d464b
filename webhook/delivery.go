package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// Delivery is a request whose signature was verified.
type Delivery struct {
	Scheme   string
	ID       string    // of the delivery; "" unless the scheme signs it
	Time     time.Time // of signing; zero unless the scheme signs it
	KeyIndex int       // which of Config.Keys matched; 0 where a CertSource has them

	// Body is the body as received. What r.Body reads is the same memory.
	Body []byte

	scheme   *compiled
	id, time string  // as they were signed
	extras   *extras // nil unless the scheme has them
}

// extras are what few schemes sign. Most deliveries do without their memory.
type extras struct {
	method, url string
	signed      []byte // where a function has verified
}

// fill sets a new Delivery to what was verified.
func (d *Delivery) fill(s *compiled, what *verified) {
	res, vals := &what.result, &what.vals
	d.Scheme, d.ID, d.Time, d.KeyIndex, d.Body = s.Name, res.ID, res.Time, res.Key, what.body
	d.scheme, d.id, d.time = s, vals.id, vals.time
	if s.extras {
		d.extras = &extras{vals.method, vals.url, res.Signed}
	}
}

// values are those of the signature.
func (d *Delivery) values() values {
	v := values{id: d.id, time: d.time}
	if d.extras != nil {
		v.method, v.url = d.extras.method, d.extras.url
	}
	return v
}

// ReplayKey identifies the delivery: SHA-256 over the name of the scheme and
// what the signature covers. Nothing that a stranger can change without the
// key, such as an ID in a header that is not signed, is in it. It is computed
// by each call.
func (d *Delivery) ReplayKey() [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte{byte(len(d.Scheme))})
	h.Write([]byte(d.Scheme))
	switch {
	case d.scheme == nil:
		h.Write(d.Body)
	case d.scheme.Verify != nil:
		h.Write(d.extras.signed)
	default:
		v := d.values()
		text, split := d.scheme.render(nil, &v)
		h.Write(text[:split])
		h.Write(d.Body)
		h.Write(text[split:])
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum
}

// EventID returns the provider's ID of the event from the verified body (for
// schemes with an EventField), or else the signed ID of the delivery. Providers
// that sign each attempt anew, as Slack does, repeat this ID, and the
// replay guard does not see that. Whether the body is signed at all, the
// scheme's documentation says.
func (d *Delivery) EventID() (string, bool) {
	if d.scheme == nil || d.scheme.EventField == "" {
		return d.ID, d.ID != ""
	}
	raw, ok := field(d.Body, d.scheme.EventField)
	if !ok {
		return "", false
	}
	var id string
	if json.Unmarshal(raw, &id) != nil {
		id = string(raw) // a number
	}
	return id, id != "" && id != "null"
}

// field returns a member of a JSON object. Names match byte by byte.
func field(body []byte, path string) (json.RawMessage, bool) {
	raw := json.RawMessage(body)
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return nil, false
		}
		var ok bool
		if raw, ok = object[name]; !ok {
			return nil, false
		}
	}
	return raw, true
}

// FromContext returns the delivery in ctx: of several verifiers, or
// [NewContext], that of the innermost.
func FromContext(ctx context.Context) (*Delivery, bool) {
	d, ok := ctx.Value(contextKey{}).(*Delivery)
	return d, ok
}

// From returns the delivery that v itself has verified.
func (v *Verifier) From(ctx context.Context) (*Delivery, bool) {
	d, ok := ctx.Value(v).(*Delivery)
	return d, ok
}

// NewContext returns a copy of ctx that carries d, for tests of handlers.
func NewContext(ctx context.Context, d *Delivery) context.Context {
	return context.WithValue(ctx, contextKey{}, d)
}

type contextKey struct{}

// record is a delivery together with all that is made for it, in one
// allocation.
type record struct {
	Delivery
	reader body
	ctx    delivered
}

// handled is a record with the request for the handler.
type handled struct {
	record
	request http.Request
}

// delivered is the context of a request whose delivery was verified.
type delivered struct {
	context.Context
	by *Verifier
	d  *Delivery
}

// Value returns the delivery for the package's key and for its verifier.
func (c *delivered) Value(key any) any {
	switch key := key.(type) {
	case contextKey:
		return c.d
	case *Verifier:
		if key == c.by {
			return c.d
		}
	}
	return c.Context.Value(key)
}
