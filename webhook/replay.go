package webhook

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"example.com/plainware/store"
)

// guard remembers deliveries in a store. A delivery is claimed while its
// handler runs, then done, or forgotten again if the handler failed.
type guard struct {
	store  store.Store
	prefix string
	lease  time.Duration
	keep   time.Duration
}

const (
	claimed = 'c' // followed by the token of the claim
	done    = 'd'
)

// settleTime bounds how long the end of a claim may take. The request may be
// gone by then.
const settleTime = 5 * time.Second

func newGuard(c Config, s *compiled, tolerance time.Duration) (*guard, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("webhook: "+format, args...)) }
	g := &guard{prefix: "plainware/webhook/v1/" + c.Name + "/", lease: c.Lease, keep: c.Keep}
	if c.Store == nil {
		if s.NeedsStore {
			bad("Store: is required, the scheme's signature does not protect the body (got nil)")
		}
		for name, set := range map[string]bool{"Name": c.Name != "", "Lease": c.Lease != 0, "Keep": c.Keep != 0, "Key": c.Key != nil} {
			if set {
				bad("%s: has no meaning without a Store", name)
			}
		}
		return nil, errors.Join(errs...)
	}
	if !validEndpoint(c.Name) {
		bad("Name: must be 1 to 64 letters, digits, dots, underscores and hyphens (got %q)", c.Name)
	}
	switch {
	case c.Lease == 0:
		g.lease = time.Minute
	case c.Lease < time.Second || c.Lease > time.Hour:
		bad("Lease: must be between 1s and 1h (got %v)", c.Lease)
	}
	switch {
	case c.Keep == 0 && tolerance == 0 && s.needsWindow():
		g.keep = 8 * 24 * time.Hour
	case c.Keep == 0 && tolerance == 0:
		g.keep = 72 * time.Hour
	case c.Keep == 0:
		g.keep = max(24*time.Hour, 2*tolerance)
	case c.Keep < time.Second || c.Keep > 366*24*time.Hour:
		bad("Keep: must be between 1s and 366 days (got %v)", c.Keep)
	case c.Keep < 2*tolerance:
		bad("Keep: must be twice the tolerance of %v or more, or a delivery can be replayed after it (got %v)", tolerance, c.Keep)
	}
	kept, err := store.Keep(c.Store)
	if err != nil {
		bad("Store: %w", err)
	}
	g.store = kept
	return g, errors.Join(errs...)
}

func validEndpoint(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// claim is the right to handle a delivery, until the lease ends.
type claim struct {
	key   string
	value []byte
}

// claim takes the delivery d. The error is ErrDuplicate, ErrInFlight or ErrStore.
func (g *guard) claim(ctx context.Context, d *Delivery, custom func(*Delivery) string) (*claim, error) {
	sum := d.ReplayKey()
	if custom != nil {
		if key := custom(d); key != "" {
			h := sha256.New()
			io.WriteString(h, "key\x00"+d.Scheme+"\x00")
			io.WriteString(h, key)
			h.Sum(sum[:0])
		}
	}
	c := &claim{key: g.prefix + hex.EncodeToString(sum[:]), value: make([]byte, 17)}
	c.value[0] = claimed
	rand.Read(c.value[1:])

	// A claim may expire between the two calls; then there is another try.
	for range 3 {
		ok, err := g.store.CompareAndSwap(ctx, c.key, nil, c.value, g.lease)
		if err != nil {
			// It may have been applied all the same.
			g.release(ctx, c)
			return nil, fmt.Errorf("%w: %w", ErrStore, err)
		}
		if ok {
			return c, nil
		}
		old, ok, err := g.store.Get(ctx, c.key)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrStore, err)
		case ok && len(old) == 1 && old[0] == done:
			return nil, ErrDuplicate
		case ok:
			return nil, ErrInFlight
		}
	}
	return nil, ErrInFlight
}

// errLost and errLate say that the lease ended before the handler did.
var (
	errLost = errors.New("the handler took longer than the lease, and the delivery may have been handled twice")
	errLate = errors.New("the handler took longer than the lease; nobody else has the delivery, and it is remembered as handled")
)

// finish marks the delivery as done, unless the claim was lost to another.
func (g *guard) finish(ctx context.Context, c *claim) error {
	return g.settle(ctx, c, []byte{done}, g.keep)
}

// release forgets the delivery, unless the claim was lost to another.
func (g *guard) release(ctx context.Context, c *claim) error { return g.settle(ctx, c, nil, 0) }

func (g *guard) settle(ctx context.Context, c *claim, value []byte, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	ok, err := g.store.CompareAndSwap(ctx, c.key, c.value, value, ttl)
	if err != nil || ok {
		return err
	}
	if value != nil { // it was handled, and its repetition must not be
		if ok, err = g.store.CompareAndSwap(ctx, c.key, nil, value, ttl); err != nil {
			return err
		}
		if ok {
			return errLate
		}
	}
	return errLost
}
