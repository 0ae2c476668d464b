package cookies

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"example.com/plainware/internal/cookieattr"
)

// Cookie is a declared cookie that carries a T. It is safe for concurrent use.
type Cookie[T any] struct {
	core
	codec Codec[T]
}

// NewSealed declares a cookie whose value only this program can read or make:
// encrypted and authenticated. The error names every problem in c.
func NewSealed[T any](c Config[T]) (*Cookie[T], error) {
	suite := c.Suite
	if suite.Version == "" && suite.New == nil {
		suite = standardSuite()
	} else if err := suite.check(); err != nil {
		// The other problems are told too, so the rest is tried with
		// a suite that works.
		_, more := newCore(c, standardSuite(), false)
		return nil, errors.Join(err, more)
	}
	return newCookie(c, suite, false)
}

// NewSigned declares a cookie whose value everybody can read and only this
// program can make. The error names every problem in c.
func NewSigned[T any](c Config[T]) (*Cookie[T], error) {
	suite := Suite{Version: versionSigned}
	if c.Suite.Version != "" || c.Suite.New != nil {
		_, more := newCore(c, suite, true)
		return nil, errors.Join(fmt.Errorf("cookies: Suite: is for sealed cookies only (got %q)", c.Suite.Version), more)
	}
	return newCookie(c, suite, true)
}

func newCookie[T any](c Config[T], suite Suite, signed bool) (*Cookie[T], error) {
	core, err := newCore(c, suite, signed)
	if err != nil {
		return nil, err
	}
	codec := c.Codec
	if codec == nil {
		codec = JSON[T]()
	}
	return &Cookie[T]{core, codec}, nil
}

// Name returns the name of the cookie, with its prefix.
func (c *Cookie[T]) Name() string { return c.parts[0].Name() }

// Set puts the cookie with the value v into the response header, in place of one
// that is there already. It has to come before the response is written. On
// error nothing is changed: [ErrTooLarge], or what the Codec says. The
// request is for Bind and for the chunks that it brought; without either it may
// be nil.
func (c *Cookie[T]) Set(w http.ResponseWriter, r *http.Request, v T) error {
	binding, err := c.binding(r)
	if err != nil {
		return err
	}
	s := getScratch()
	defer s.free()
	if err := c.encode(s, v, binding); err != nil {
		return err
	}
	c.put(w.Header(), r, s, c.maxAge)
	return nil
}

// Get returns the value of the cookie in the request. Of several cookies of the
// name, which a browser sends where another path or a parent domain has set one
// too, exactly one must be valid. Errors are [ErrNotFound], [ErrInvalid],
// [ErrExpired], [ErrUnknownKey] and [CodecError]; all but the first are
// ErrInvalid to errors.Is.
func (c *Cookie[T]) Get(r *http.Request) (T, Info, error) {
	v, o, err := c.get(r)
	if err != nil {
		return v, Info{}, err
	}
	return v, o.info(), nil
}

// get reads the value of a request, and tells OnRead.
func (c *Cookie[T]) get(r *http.Request) (T, opened, error) {
	var v T
	o, err := c.find(r)
	if err == nil {
		v, err = c.decode(o)
	}
	c.tell(r, o, err)
	return v, o, err
}

// tell calls OnRead.
func (c *core) tell(r *http.Request, o opened, err error) {
	switch {
	case c.onRead == nil || err == ErrNotFound:
	case o.key == nil:
		c.onRead(r, Info{}, err)
	default:
		c.onRead(r, o.info(), err)
	}
}

// Refresh writes the value of the request again, under the first key, where its
// [Info] says NeedsRefresh and the response neither sets nor deletes a cookie
// of that name yet. It reports whether it did. The value expires when it would have, unless
// [Config.Sliding] is set and half of its life is over. The error is that of
// reading it, and nothing is written then.
//
// [Cookie.Handler] does this by itself, and not on responses that a shared cache
// could keep: here that is the caller's care.
func (c *Cookie[T]) Refresh(w http.ResponseWriter, r *http.Request) (bool, error) {
	_, o, err := c.get(r)
	if err != nil {
		return false, err
	}
	return c.refresh(w.Header(), r, o), nil
}

// refresh writes an opened value again if it is due and nothing else was
// decided about the cookie.
func (c *core) refresh(h http.Header, r *http.Request, o opened) bool {
	if !o.slides && o.key.stage != fallback || c.parts[0].Mentioned(h) {
		return false
	}
	s := getScratch()
	defer s.free()
	s.plain = append(append(s.plain[:0], make([]byte, headSize)...), o.payload...)
	now := time.Now().Unix()
	if o.slides {
		o.issued, o.expires = now, now+c.maxAge
	}
	// A value that was read fits: its length does not depend on the key.
	if c.seal(s, o.issued, o.expires, o.binding) != nil {
		return false
	}
	c.put(h, r, s, max(1, o.expires-now))
	return true
}

// Delete makes the browser drop the cookie, and every chunk that it may have.
// It takes the place of what Set has put into the response.
func (c *Cookie[T]) Delete(w http.ResponseWriter) {
	for _, part := range c.parts {
		part.Put(w.Header(), part.Deletion())
	}
}

// Encode returns the value that Set would send, in one piece and bound to
// binding in the place of what Bind returns. Where a value travels by another
// way than a cookie, the name still binds it.
func (c *Cookie[T]) Encode(v T, binding string) (string, error) {
	if len(binding) > maxBinding {
		return "", errBinding
	}
	s := getScratch()
	defer s.free()
	if err := c.encode(s, v, binding); err != nil {
		return "", err
	}
	return string(s.text), nil
}

// encode makes a new value of v in s.text.
func (c *Cookie[T]) encode(s *scratch, v T, binding string) error {
	plain, err := c.codec.Append(append(s.plain[:0], make([]byte, headSize)...), v)
	if err != nil {
		return fmt.Errorf("cookies: Codec: %w", err)
	}
	if len(plain) < headSize {
		return errors.New("cookies: Codec: Append returned less than it was given")
	}
	s.plain = plain
	now := time.Now().Unix()
	return c.seal(s, now, now+c.maxAge, binding)
}

// Decode returns the value in a text that Encode has made with the same binding.
// It is Get without a request.
func (c *Cookie[T]) Decode(text, binding string) (T, Info, error) {
	var v T
	if len(binding) > maxBinding {
		return v, Info{}, ErrInvalid
	}
	o, err := c.open(text, binding)
	if err == nil {
		v, err = c.decode(o)
	}
	if err != nil {
		return v, Info{}, err
	}
	return v, o.info(), nil
}

func (c *Cookie[T]) decode(o opened) (T, error) {
	v, err := c.codec.Decode(o.payload)
	if err != nil {
		var zero T
		return zero, &CodecError{err}
	}
	return v, nil
}

// find returns the one valid value of the request.
func (c *core) find(r *http.Request) (opened, error) {
	var room [maxSame + 1]string
	found := cookieattr.Values(room[:0], r.Header, c.parts[0].Name())
	switch {
	case len(found) == 0:
		return opened{}, ErrNotFound
	case len(found) > maxSame:
		return opened{}, ErrInvalid
	}
	binding, err := c.binding(r)
	if err != nil {
		return opened{}, ErrInvalid
	}
	var one opened
	var failed error
	for i, text := range found {
		if slices.Contains(found[:i], text) {
			continue
		}
		o, err := c.candidate(r, text, binding)
		switch {
		case err == nil && one.key != nil:
			return opened{}, ErrInvalid
		case err == nil:
			one = o
		case failed == nil:
			failed = err
		default:
			failed = worse(failed, err)
		}
	}
	if one.key == nil {
		return opened{}, failed
	}
	one.binding = binding
	return one, nil
}

// candidate opens one value of the cookie's name.
func (c *core) candidate(r *http.Request, text, binding string) (opened, error) {
	if len(c.parts) > 1 {
		whole, ok := c.join(r, text)
		if !ok {
			return opened{}, ErrInvalid
		}
		text = whole
	}
	return c.open(text, binding)
}

// errBinding is the program's mistake and not the client's.
var errBinding = fmt.Errorf("cookies: Bind: returned more than %d bytes", maxBinding)

// binding asks Bind.
func (c *core) binding(r *http.Request) (string, error) {
	if c.bind == nil {
		return "", nil
	}
	b := c.bind(r)
	if len(b) > maxBinding {
		return "", errBinding
	}
	return b, nil
}
