package paginate

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Mode is how requests move through a list.
type Mode int

// The modes.
const (
	Cursor     Mode = iota // after or before a row: [Config.CursorParam]
	PageNumber             // pages that count from 1: [Config.PageParam]
	RowOffset              // rows to skip: [Config.OffsetParam]
)

// What the zero values of [Config] stand for.
const (
	DefaultSize      = 50
	DefaultMax       = 1000
	DefaultMaxOffset = 10_000
)

// minKey is the length that a key must have at least: that of the hash.
const minKey = 32

// Config configures a [Pager]. In mode [Cursor] Keys is required.
//
// Functions are called from the goroutine that serves the request and must be
// safe for concurrent use.
type Config struct {
	// Keys sign or encrypt cursors: the first one makes them, all of them read
	// them. Each has 32 bytes or more, from a secure random source, and is
	// shared by all processes that serve the list. Working keys are derived
	// from them for this package alone. To replace a key, put the new one into
	// Incoming everywhere, then first into Keys, then drop the old one.
	Keys [][]byte

	// Incoming are keys that only read: those that another process already
	// makes cursors with. nil is none.
	Incoming [][]byte

	// Mode is how requests move through the list. 0 is [Cursor].
	Mode Mode

	// Default is the page size, in rows, of a request that names none or 0.
	// 0 is [DefaultSize], or Max if that is smaller. It must not exceed Max.
	Default int

	// Max is the largest page size: a request for more gets Max rows. 0 is
	// [DefaultMax], or Default if that is larger.
	Max int

	// MaxOffset is the largest number of rows to skip in the modes
	// [PageNumber] and [RowOffset]; a request for more is refused, since the database
	// reads all of them. 0 is [DefaultMaxOffset], negative is no limit.
	MaxOffset int

	// TTL is how long a cursor is good for; then it is refused with 410, and
	// the client starts again. It is kept in whole seconds, rounded up. 0 or
	// negative is for ever, which suits cursors that hold nothing but the
	// position. At most 100 years.
	TTL time.Duration

	// Encrypt hides the values in cursors from those who hold them. Encrypted
	// cursors are 12 bytes longer and differ each time. A key must not make more
	// than 2^32 of them (NIST SP 800-38D, section 8.3).
	Encrypt bool

	// Order is the order of the list, if it has only one: New checks it, and
	// cursors are bound to it, so that none survives a change of the program.
	// Where the client chooses among several orders by a query parameter,
	// leave it nil: the parameter is bound, like all of them.
	Order Order

	// Scope returns what else a cursor is bound to: the tenant or the user,
	// where neither path nor query tells. nil is nothing else.
	Scope func(*http.Request) []string

	// Unbound are query parameters that may differ between the pages of one
	// list, because they do not change which rows it has: fields, pretty. nil
	// is none; the parameters below never are bound.
	Unbound []string

	// The names of the query parameters. "" is "limit", "cursor", "page",
	// "offset" and "total". Only those of the Mode are looked at; those of
	// other modes belong to the handler.
	SizeParam, CursorParam, PageParam, OffsetParam, TotalParam string

	// Base makes links absolute: its scheme, host and path stand before the
	// path of the request. nil gives links that are relative to the request
	// (RFC 3986, section 5.2), "?limit=10&cursor=…", which are right behind any
	// proxy and whatever the client calls this host. The request's own Host is never used:
	// who forges it would name the place of the client's next request. It must
	// be an http or https URL without query, fragment and user.
	Base *url.URL

	// ErrorHandler answers a request whose paging is wrong; the error is an
	// [*Error]. nil is [WriteError].
	ErrorHandler func(http.ResponseWriter, *http.Request, error)
}

// check returns c with its defaults filled in and everything that it refers to
// copied, or every problem.
func (c Config) check() (Config, error) {
	var errs []error
	bad := func(field, problem string, got any) {
		errs = append(errs, fmt.Errorf("paginate: %s: %s (got %v)", field, problem, got))
	}
	c.checkMode(bad)
	c.checkSizes(bad)
	c.checkParams(bad)
	if c.Order != nil {
		c.Order = slices.Clone(c.Order)
		if err := c.Order.check(); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Base != nil {
		b := *c.Base
		if b.Scheme != "http" && b.Scheme != "https" || b.Host == "" || b.User != nil ||
			b.RawQuery != "" || b.ForceQuery || b.Fragment != "" || b.Opaque != "" {
			bad("Base", "must be an http or https URL with a host and at most a path", b.Redacted())
		}
		c.Base = &b
	}
	return c, errors.Join(errs...)
}

func (c *Config) checkMode(bad func(field, problem string, got any)) {
	if c.Mode < Cursor || c.Mode > RowOffset {
		bad("Mode", "is none of Cursor, PageNumber and RowOffset", int(c.Mode))
	}
	if c.Mode == Cursor && len(c.Keys) == 0 {
		bad("Keys", "are required in mode Cursor", "none")
	}
	for i, k := range c.Keys {
		if len(k) < minKey {
			bad(fmt.Sprintf("Keys[%d]", i), "must have 32 bytes or more", fmt.Sprintf("%d bytes", len(k)))
		}
	}
	for i, k := range c.Incoming {
		if len(k) < minKey {
			bad(fmt.Sprintf("Incoming[%d]", i), "must have 32 bytes or more", fmt.Sprintf("%d bytes", len(k)))
		}
	}
	const century = 100 * 365 * 24 * time.Hour
	if c.TTL > century {
		bad("TTL", "must be at most 100 years", c.TTL)
	}
	c.TTL = max(c.TTL, 0)
}

func (c *Config) checkSizes(bad func(field, problem string, got any)) {
	if c.Default < 0 {
		bad("Default", "must not be negative", c.Default)
	}
	if c.Max < 0 {
		bad("Max", "must not be negative", c.Max)
	}
	if c.Max > 0 && c.Default > c.Max {
		bad("Default", fmt.Sprintf("must not exceed Max, %d", c.Max), c.Default)
	}
	if c.Max == 0 {
		c.Max = max(DefaultMax, c.Default)
	}
	if c.Max >= maxInt {
		bad("Max", "is too large", c.Max)
	}
	if c.Default == 0 {
		c.Default = min(DefaultSize, c.Max)
	}
	switch {
	case c.MaxOffset == 0:
		c.MaxOffset = DefaultMaxOffset
	case c.MaxOffset < 0:
		c.MaxOffset = maxInt
	}
}

const maxInt = int(^uint(0) >> 1)

func (c *Config) checkParams(bad func(field, problem string, got any)) {
	seen := map[string]string{}
	for _, p := range []struct {
		field, fallback string
		name            *string
	}{
		{"SizeParam", "limit", &c.SizeParam},
		{"CursorParam", "cursor", &c.CursorParam},
		{"PageParam", "page", &c.PageParam},
		{"OffsetParam", "offset", &c.OffsetParam},
		{"TotalParam", "total", &c.TotalParam},
	} {
		if *p.name == "" {
			*p.name = p.fallback
		}
		if i := strings.IndexFunc(*p.name, notPlain); i >= 0 {
			bad(p.field, "must consist of letters, digits and -._~[]", fmt.Sprintf("%q", *p.name))
		}
		if other, ok := seen[*p.name]; ok {
			bad(p.field, "has the name of "+other, fmt.Sprintf("%q", *p.name))
		}
		seen[*p.name] = p.field
	}
	c.Unbound = slices.Clone(c.Unbound)
	for i, name := range c.Unbound {
		if name == "" {
			bad(fmt.Sprintf("Unbound[%d]", i), "is empty", `""`)
		}
	}
}

// notPlain reports what a parameter's name must not have, so that it needs no
// escaping in a link. Brackets are for names such as page[size].
func notPlain(c rune) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return false
	}
	return !strings.ContainsRune("-._~[]", c)
}

// position is the parameter that the mode moves by.
func (c *Config) position() string {
	switch c.Mode {
	case PageNumber:
		return c.PageParam
	case RowOffset:
		return c.OffsetParam
	}
	return c.CursorParam
}
