package forwardauth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"example.com/plainware/store"
)

// The defaults and bounds of CacheConfig.
const (
	defaultMaxTTL       = 10 * time.Second
	defaultStoreTimeout = 250 * time.Millisecond
	minKey              = 32
)

// CacheConfig configures the cache of decisions.
//
// Only decisions that allow are kept, and only if the service says for how
// long: in Cache-Control, by s-maxage or max-age less Age, without no-store,
// no-cache or private, and without a Set-Cookie or a Vary on something that the
// service was not sent. A request without Cookie and Authorization is never
// answered from the cache, nor one with a body that was part of the question.
//
// Everything that the service is told is part of the key: another method, path,
// query, host, scheme, client address, cookie or other forwarded header is
// another decision. What is in the store can be read by those who can read the
// store, as it stands in the identity headers; it cannot be forged by those
// who can write to it.
//
// Concurrent requests with one key wait for one question, each as long as its
// own context lasts, and none joins one that is 3 s old. They share its answer
// if it denies without a Set-Cookie, if it may be kept, or if there was none;
// otherwise each asks for itself.
type CacheConfig struct {
	// Store holds the decisions. A failure of it is as good as a miss, but for
	// the time that it takes: see Timeout. Required.
	Store store.Store

	// Name separates this middleware from others on the same store: 1 to 64
	// bytes of letters, digits, "-", "_" and ".". Required. A stricter Allow takes
	// effect at once only under another Name: decisions are kept without a status.
	Name string

	// MaxTTL bounds how long a decision is kept, and with it how long a logout
	// or a changed rule goes unnoticed. Zero is 10 s; it is a millisecond at
	// least and an hour at most.
	MaxTTL time.Duration

	// Keys authenticate what is stored, each 32 bytes or more: the first
	// writes, all read. nil is a key of this Middleware's own, so that what
	// others have stored is not used; set it for a store that several processes
	// share.
	Keys [][]byte

	// AnyClient leaves the address of the client out of the key, for services
	// that do not judge it. Their X-Forwarded-For and X-Real-Ip are then those
	// of whoever came first; in JSON mode the document has no client.
	AnyClient bool

	// Timeout bounds each call of the store, except of one in memory. Zero is
	// 250 ms; negative leaves reading to the context of the request, and writing
	// to those of all requests that wait for the answer. They get it when it is
	// written: a store that hangs adds up to twice Timeout to a miss.
	Timeout time.Duration
}

func (c *CacheConfig) check() error {
	var errs []error
	bad := func(field, what string, got any) {
		errs = append(errs, fmt.Errorf("forwardauth: Cache.%s: %s (got %v)", field, what, got))
	}
	if c.Store == nil {
		bad("Store", "is required", "nil")
	}
	valid := len(c.Name) >= 1 && len(c.Name) <= 64
	for i := range len(c.Name) {
		valid = valid && (isAlnum(c.Name[i]) || strings.IndexByte("-_.", c.Name[i]) >= 0)
	}
	if !valid {
		bad("Name", "must be 1 to 64 letters, digits, hyphens, underscores and dots", fmt.Sprintf("%q", c.Name))
	}
	if c.MaxTTL != 0 && (c.MaxTTL < time.Millisecond || c.MaxTTL > time.Hour) {
		bad("MaxTTL", "must be between 1ms and 1h", c.MaxTTL)
	}
	for i, k := range c.Keys {
		if len(k) < minKey {
			bad(fmt.Sprintf("Keys[%d]", i), "is shorter than 32 bytes", fmt.Sprintf("%d bytes", len(k)))
		}
	}
	return errors.Join(errs...)
}

// cache is the cache of a Middleware.
type cache struct {
	store     store.Store
	prefix    string // of keys in the store
	maxTTL    time.Duration
	timeout   time.Duration
	keys      [][]byte
	anyClient bool
	seed      [sha256.Size]byte // of what the configuration adds to every key
	flights   flights
}

func newCache(c CacheConfig, seed [sha256.Size]byte) *cache {
	k := &cache{
		store: c.Store, prefix: "plainware/forwardauth/1/" + c.Name + "/",
		maxTTL: c.MaxTTL, timeout: c.Timeout, anyClient: c.AnyClient, seed: seed,
	}
	if k.maxTTL == 0 {
		k.maxTTL = defaultMaxTTL
	}
	if k.timeout == 0 {
		k.timeout = defaultStoreTimeout
	}
	if _, ok := c.Store.(*store.Memory); ok {
		k.timeout = -1 // it does not wait for anything
	}
	for _, key := range c.Keys {
		k.keys = append(k.keys, append([]byte(nil), key...))
	}
	if len(k.keys) == 0 {
		key := make([]byte, minKey)
		rand.Read(key) // never fails
		k.keys = [][]byte{key}
	}
	return k
}

// fingerprint covers what the configuration contributes to a decision, so that
// a changed one does not find what another has stored.
func (m *Middleware) fingerprint() (sum [sha256.Size]byte) {
	b := appendPart(nil, m.cfg.URL)
	b = append(b, byte(m.cfg.Mode))
	b = appendParts(b, m.names)
	b = appendParts(b, m.cfg.RequestCookies)
	for _, c := range m.copies {
		b = appendPart(appendPart(b, c.from), c.to)
	}
	return sha256.Sum256(b)
}

// cacheable reports whether a decision on q may be shared at all.
func cacheable(q *question) bool {
	return q.body == nil && (len(q.r.Header["Cookie"]) > 0 || len(q.r.Header["Authorization"]) > 0)
}

// hasher is what it takes to compute a key and to check an entry.
type hasher struct {
	macs []hash.Hash // one for each key
	buf  []byte
	sum  [sha256.Size]byte
	path []byte // the key in the store
}

func (c *cache) newHasher() *hasher {
	h := &hasher{}
	for _, key := range c.keys {
		h.macs = append(h.macs, hmac.New(sha256.New, key))
	}
	return h
}

// key computes the key of q from what would be sent.
func (m *Middleware) key(h *hasher, q *question) string {
	b := append(h.buf[:0], m.cache.seed[:]...)
	for _, s := range [...]string{q.method, q.scheme, q.host, q.target} {
		b = appendPart(b, s)
	}
	if !m.cache.anyClient {
		b = appendPart(b, q.via)
		b = appendAddr(b, q.client)
		b = appendAddr(b, q.peer)
	}
	for _, name := range m.names {
		b = appendParts(b, m.forwarded(q.r.Header, name))
	}
	b = binary.AppendUvarint(b, uint64(len(q.input)))
	b = append(b, q.input...)
	h.buf = b
	h.sum = sha256.Sum256(b)
	h.path = append(h.path[:0], m.cache.prefix...)
	h.path = base64.RawURLEncoding.AppendEncode(h.path, h.sum[:])
	return string(h.path)
}

// appendPart and its kind append parts in such a way that no two lists of parts
// come out the same.
func appendPart(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendParts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendPart(b, s)
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, 0)
	}
	all := a.As16()
	return append(append(b, 1), all[:]...)
}

// cached decides with the cache.
func (m *Middleware) cached(q *question) (*answer, identity, *Error) {
	c := m.cache
	h := m.pool.Get().(*hasher)
	key := m.key(h, q)
	ctx := q.r.Context()
	id, ok := m.load(ctx, h, key)
	m.pool.Put(h)
	if ok {
		return nil, id, nil
	}

	f, leads := c.flights.join(ctx, key)
	if leads {
		// Made here: the request is not read any more once its own handler
		// may have ended.
		within, cancel := m.within(f.ctx)
		sub, err := m.subrequest(within, q)
		c.flights.launch(key, f, func() {
			defer cancel()
			if err != nil {
				f.err = &Error{Reason: BadTarget, Err: err}
				return
			}
			m.fly(f, key, sub)
		}, m.lost)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		// Unless it lands at this very moment.
		if c.flights.leave(key, f, leads) {
			return nil, id, m.failed(ctx, context.Cause(ctx))
		}
	}
	switch {
	case leads && f.panicked != nil:
		panic(f.panicked)
	case leads || f.shared:
		return f.result(m)
	}
	// What it brought is for the one who asked.
	a, err := m.decide(ctx, q)
	if err == nil && a.allowed {
		id = m.identified(a)
	}
	return a, id, err
}

// lost tells of a panic that there is no request left for.
func (m *Middleware) lost(v any) {
	if v != http.ErrAbortHandler {
		m.log.Error("forwardauth: a question has panicked", "panic", fmt.Sprint(v))
	}
}

// fly asks the question of a flight, and keeps the answer where it may be kept.
func (m *Middleware) fly(f *flight, key string, sub *http.Request) {
	a, err := m.ask(f.ctx, sub)
	if err == nil && a.allowed {
		if ttl := m.lifetime(a); ttl > 0 {
			f.shared = true
			m.save(f.ctx, key, m.identified(a), ttl)
		}
	} else {
		f.shared = err == nil && len(a.header["Set-Cookie"]) == 0 || err != nil && err.Reason != Canceled
	}
	if f.err = err; err == nil {
		f.answer = *a
	}
}

// load reads a decision from the store. What is not there, is not readable or
// was not written by a holder of a key is a miss.
func (m *Middleware) load(ctx context.Context, h *hasher, key string) (identity, bool) {
	ctx, cancel := m.cache.bound(ctx)
	defer cancel()
	entry, ok, err := m.cache.store.Get(ctx, key)
	if err != nil {
		if storeFailed(ctx) {
			m.log.LogAttrs(ctx, slog.LevelWarn, "forwardauth: reading from the decision cache failed", errAttr(err))
		}
		return identity{}, false
	}
	if !ok {
		return identity{}, false
	}
	payload, ok := h.open(entry)
	if !ok {
		return identity{}, false
	}
	left := time.Until(time.UnixMilli(int64(binary.BigEndian.Uint64(payload))))
	if left <= 0 || left > m.cache.maxTTL {
		return identity{}, false
	}
	return m.readIdentity(string(payload[8:]))
}

// save writes a decision to the store.
func (m *Middleware) save(ctx context.Context, key string, id identity, ttl time.Duration) {
	ctx, cancel := m.cache.bound(ctx)
	defer cancel()
	h := m.pool.Get().(*hasher)
	defer m.pool.Put(h)
	sum, err := base64.RawURLEncoding.DecodeString(key[len(m.cache.prefix):])
	if err != nil {
		return // it was encoded above
	}
	copy(h.sum[:], sum)
	payload := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(ttl).UnixMilli()))
	entry := h.seal(m.appendIdentity(payload, &id))
	if err := m.cache.store.Put(ctx, key, entry, ttl); err != nil && storeFailed(ctx) {
		m.log.LogAttrs(ctx, slog.LevelWarn, "forwardauth: writing to the decision cache failed", errAttr(err))
	}
}

// storeFailed reports whether an error of a store, called with ctx, is its own
// doing and not that of clients who have left, who could fill the log.
func storeFailed(ctx context.Context) bool {
	return ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded)
}

func (c *cache) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout < 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// entryVersion is the first byte of an entry. The rest is a MAC over the key and
// the payload, then the payload: its end in Unix milliseconds, and for each
// CopyHeaders the number of values and the values.
const entryVersion = 1

// seal returns the entry for a payload under the key whose hash is h.sum.
func (h *hasher) seal(payload []byte) []byte {
	entry := make([]byte, 0, 1+sha256.Size+len(payload))
	entry = append(entry, entryVersion)
	entry = h.mac(0, entry, payload)
	return append(entry, payload...)
}

func (h *hasher) mac(i int, dst, payload []byte) []byte {
	mac := h.macs[i]
	mac.Reset()
	mac.Write(h.sum[:])
	mac.Write(payload)
	return mac.Sum(dst)
}

// open returns the payload of an entry that a holder of one of the keys has
// written under this key.
func (h *hasher) open(entry []byte) ([]byte, bool) {
	const head = 1 + sha256.Size
	if len(entry) < head+8 || entry[0] != entryVersion {
		return nil, false
	}
	for i := range h.macs {
		h.buf = h.mac(i, h.buf[:0], entry[head:])
		if subtle.ConstantTimeCompare(h.buf, entry[1:head]) == 1 {
			return entry[head:], true
		}
	}
	return nil, false
}

// errAttr is the error of a store, which never has a key or a value in it.
func errAttr(err error) slog.Attr { return slog.Any("err", err) }
