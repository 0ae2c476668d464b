package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Scheme describes how a provider signs. It is plain data that [New] reads
// once: take a preset and change what differs, or write your own. Providers
// whose signature cannot be described have a function in Verify.
type Scheme struct {
	// Name is part of replay keys and of [Delivery]: lower-case letters,
	// digits and "-". Required.
	Name string

	// Algorithm and Encoding are those of the signature. Required, unless
	// Verify is set; then Algorithm is what [Message.Match] goes by.
	Algorithm Algorithm
	Encoding  Encoding

	// Header is the field with the signature, and Format what else is in it.
	// A delivery has exactly one line of it ([Mollie] has more). Required, unless
	// Verify is set.
	Header string
	Format Format

	// AlsoHeader is a second field for signatures of the same form. Then one
	// of the two is enough. "" is none.
	AlsoHeader string

	// TimeHeader is the field with the time of signing, and TimeFormat how it
	// is written. With [Pairs] and [TimeList] the time is in Header instead.
	// TimeField is a member of the JSON body, a number, for providers that put
	// it there. Dots lead into objects, as in EventField.
	TimeHeader string
	TimeField  string
	TimeFormat TimeFormat

	// IDHeader is the field with the ID of the delivery. Only one that is
	// signed is worth reading.
	IDHeader string

	// Signed is what the signature covers: text with {body}, {id}, {time},
	// {method}, {url} and {url-hubspot} in it, as in "{id}.{time}.{body}". Time
	// and ID are the header's text as received; {url} is made of [Config.URL], and
	// {url-hubspot} is that with twelve of its percent-encodings decoded. The
	// body must be in it. Required, unless Verify is set. For [Token], which signs
	// nothing, it is what makes two deliveries the same.
	Signed string

	// Require lists fields that must have one line with this very value, such
	// as the version of the signature. nil is none.
	Require map[string]string

	// Tolerance is how far the signed time may be from now, in either
	// direction, at most 366 days. Zero is no check. With a Verify of its own it is what
	// [Message.Time] judges by, and needs a TimeFormat, which says that Verify
	// reads a time.
	Tolerance time.Duration

	// MinSecret is the shortest secret that New accepts, in bytes. Zero is 8.
	MinSecret int

	// Methods are those of deliveries, in upper case. nil is POST.
	Methods []string

	// NeedsURL says that a Verify of its own reads [Message.URL], so that
	// [Config.URL] is required.
	NeedsURL bool

	// NeedsStore says that [Config.Store] is required, because a delivery that
	// was captured can be sent again with another body.
	NeedsStore bool

	// EventField is the member of the JSON body with the provider's ID of the
	// event, for [Delivery.EventID]. Dots lead into objects: "event.id".
	EventField string

	// Strip lists fields that [Config.StripHeaders] removes beside those of
	// the signature.
	Strip []string

	// NoKeys says that a Verify of its own has the keys, and [Config.Keys] must
	// be empty.
	NoKeys bool

	// Verify verifies in place of all the above that concerns the signature.
	// Header is still checked first where it is not "". It is called
	// concurrently.
	Verify func(*Message) (Result, error)

	// Sign is the counterpart of Verify for [Sign].
	Sign func(*Outgoing, Key) error

	// Challenge returns the answer to a verified delivery by which the
	// provider tests the endpoint, or nil if it is an event. nil is none.
	Challenge func(*Message, *Delivery) *Answer

	// Probe answers GET requests, which are not signed, where the provider
	// tests the endpoint so. Its error is the answer otherwise. nil is none,
	// and GET is not allowed. A route for POST alone does not let them through.
	Probe func(*Message) (*Answer, error)

	// bodyJSON says that the provider's bodies are JSON objects or arrays, or
	// empty; see movable.
	bodyJSON bool

	// lines says that each signature may have a line of Header for itself.
	lines bool

	// whsec says how secrets are read that begin so.
	whsec whsecForm

	// probedBy is the method of requests for Probe, "" for GET.
	probedBy string

	// bodiless says that the provider takes an answer with a body for a failure,
	// also of a refusal.
	bodiless bool

	// err is what is wrong with the arguments of a preset.
	err error
}

type whsecForm uint8

const (
	whsecText whsecForm = iota + 1
	whsecBase64
)

// Algorithm is how a signature is made.
type Algorithm uint8

// The algorithms. Those whose names end in Legacy are for providers that have
// nothing better: no preset falls back to one.
const (
	HMACSHA256         Algorithm = iota + 1 // RFC 2104
	HMACSHA512                              // RFC 2104
	HMACSHA1Legacy                          // RFC 2104
	SHA256Legacy                            // SHA-256 of the secret followed by what is signed, which can be extended
	Ed25519                                 // RFC 8032
	ECDSAP256SHA256                         // ASN.1 DER, as of RFC 3279 section 2.2.3
	ECDSAP256SHA256Raw                      // r and s in 64 bytes, as of RFC 9421 section 3.3.4
	RSASHA256                               // PKCS #1 v1.5, RFC 8017 section 8.2
	RSASHA1Legacy                           // PKCS #1 v1.5
	RSAPSSSHA512                            // RFC 8017 section 8.1, salt of 64 bytes
	Token                                   // the secret itself; protects no byte of the request
	TokenSHA256                             // SHA-256 of the secret; the same
)

// Encoding is how the bytes of a signature are written.
type Encoding uint8

// The encodings. Each is taken in its one canonical form, but hex digits may
// be in either case.
const (
	Hex       Encoding = iota + 1
	Base64             // RFC 4648 section 4, padded
	Base64URL          // RFC 4648 section 5, without padding
	Text               // as it is, for Token
)

// TimeFormat is how a time is written.
type TimeFormat uint8

// The formats. Numbers are 1 to 16 digits without a sign or a leading zero.
const (
	UnixSeconds TimeFormat = iota + 1
	UnixMillis
	RFC3339
)

// Format says what is in the signature's header field. The zero Format is a
// signature and nothing else.
type Format struct {
	kind               formatKind
	prefix, sep, timed string
	optional           bool // the prefix of a list
}

type formatKind uint8

const (
	bare formatKind = iota
	prefixed
	pairs
	list
	timeList
)

// Prefixed is a signature after a fixed text: "sha256=".
func Prefixed(prefix string) Format { return Format{kind: prefixed, prefix: prefix} }

// Pairs is names with values, separated by sep: "t=1700000000,v1=…,v0=…". The
// time has the name time, once; signatures have the name sig, one or more.
// Pairs with other names are ignored, spaces around a pair too.
func Pairs(sep, time, sig string) Format {
	return Format{kind: pairs, sep: sep, timed: time, prefix: sig}
}

// List is signatures, separated by sep, each with the prefix: "v1,… v1,…".
// Those with another prefix are ignored.
func List(sep, prefix string) Format { return Format{kind: list, sep: sep, prefix: prefix} }

// TimeList is the time and then signatures, separated by commas.
func TimeList() Format { return Format{kind: timeList, sep: ","} }

// problem is what is wrong with f, "" if nothing.
func (f Format) problem() string {
	leading := func(s string) bool { return s != "" && (s[0] == ' ' || s[0] == '\t') }
	switch {
	case leading(f.prefix) || leading(f.timed):
		return "must have no space before a name or a prefix, it is cut off"
	case f.kind != pairs && f.kind != list && f.kind != timeList:
	case f.sep == "":
		return "must have a separator"
	case strings.Contains(f.prefix, f.sep) || strings.Contains(f.timed, f.sep):
		return "must have no separator in a name or a prefix"
	case f.kind == pairs && strings.Contains(f.sep+f.timed+f.prefix, "="):
		return "must have no equals sign in the separator or a name"
	case f.kind == pairs && (f.timed == "" || f.prefix == "" || f.timed == f.prefix):
		return "must have a name for the time and another for signatures"
	}
	return ""
}

// room is how many signatures one delivery can carry.
func (c *compiled) room() int {
	switch {
	case c.Verify != nil:
		return 1
	case c.Format.kind != bare && c.Format.kind != prefixed:
		return maxSignatures
	case c.AlsoHeader != "":
		return 2
	}
	return 1
}

// crowded is what is wrong with n keys to sign with, "" if nothing.
func (c *compiled) crowded(n int) string {
	switch room := c.room(); {
	case n <= room:
		return ""
	case room == 1:
		return fmt.Sprintf("has room for one signature (got %d)", n)
	default:
		return fmt.Sprintf("has room for %d signatures (got %d)", room, n)
	}
}

// piece is a part of what is signed: a literal, or a value in braces.
type piece struct {
	part    part
	literal string
}

type part uint8

const (
	partLiteral part = iota
	partID
	partTime
	partMethod
	partURL
	partURLHubSpot
)

// partOf returns the part that a scheme names so in braces, apart from the body.
func partOf(name string) (part, bool) {
	switch name {
	case "id":
		return partID, true
	case "time":
		return partTime, true
	case "method":
		return partMethod, true
	case "url":
		return partURL, true
	case "url-hubspot":
		return partURLHubSpot, true
	}
	return 0, false
}

// compiled is a scheme that was checked, with canonical header names.
type compiled struct {
	Scheme
	before, after []piece // of Signed, around the body
	needsURL      bool
	extras        bool // deliveries have extras
	touching      bool // url and body are signed one beside the other
	sigSize       int  // 0 varies
	headers       []string
	require       [][2]string
	strip         []string
}

// compile checks s. The errors do not name the Config's field.
func (s Scheme) compile() (*compiled, error) {
	var errs []error
	if s.err != nil {
		errs = append(errs, s.err)
	}
	bad := func(field, what string, got any) {
		errs = append(errs, fmt.Errorf("webhook: Scheme.%s: %s (got %q)", field, what, got))
	}
	c := &compiled{Scheme: s, needsURL: s.NeedsURL, extras: s.Verify != nil}
	if !validName(s.Name) {
		bad("Name", "must be 1 to 64 lower-case letters, digits and hyphens", s.Name)
	}
	name := func(field, value string) string {
		if value == "" {
			return ""
		}
		if !isToken(value) {
			bad(field, "is not a header field name", value)
		}
		return http.CanonicalHeaderKey(value)
	}
	c.Header, c.AlsoHeader = name("Header", s.Header), name("AlsoHeader", s.AlsoHeader)
	c.TimeHeader, c.IDHeader = name("TimeHeader", s.TimeHeader), name("IDHeader", s.IDHeader)
	for _, h := range []string{c.Header, c.AlsoHeader} {
		if h != "" {
			c.headers = append(c.headers, h)
		}
	}
	for k, v := range s.Require {
		c.require = append(c.require, [2]string{name("Require", k), v})
	}
	for _, k := range s.Strip {
		c.strip = append(c.strip, name("Strip", k))
	}
	c.strip = append(c.strip, c.headers...)
	if s.Tolerance < 0 || s.Tolerance > maxTolerance {
		bad("Tolerance", "must be between 0 and 366 days", s.Tolerance.String())
	}
	if s.MinSecret < 0 {
		bad("MinSecret", "must not be negative", fmt.Sprint(s.MinSecret))
	}
	if c.MinSecret == 0 {
		c.MinSecret = 8
	}
	if len(s.Methods) == 0 {
		c.Methods = []string{http.MethodPost}
	} else {
		c.Methods = append([]string(nil), s.Methods...)
	}
	if c.probedBy == "" {
		c.probedBy = http.MethodGet
	}
	for _, m := range s.Methods {
		if !isToken(m) || m != strings.ToUpper(m) {
			bad("Methods", "is not the name of a method in upper case", m)
		}
	}
	if s.Algorithm > TokenSHA256 || s.Algorithm == 0 && s.Verify == nil {
		bad("Algorithm", "is not one", fmt.Sprint(s.Algorithm))
	}
	if s.Verify != nil {
		if s.Tolerance > 0 && s.TimeFormat == 0 {
			bad("Tolerance", "there is no time to judge, or TimeFormat does not say so", s.Tolerance.String())
		}
		return c, errors.Join(errs...)
	}

	if s.Header == "" {
		bad("Header", "is required", "")
	}
	if s.Encoding < Hex || s.Encoding > Text {
		bad("Encoding", "is not one", fmt.Sprint(s.Encoding))
	}
	if s.Encoding == Text && s.Algorithm != Token {
		bad("Encoding", "Text is for the Algorithm Token", fmt.Sprint(s.Encoding))
	}
	if what := s.Format.problem(); what != "" {
		bad("Format", what, s.Format.sep+s.Format.prefix)
	}
	c.sigSize = s.Algorithm.size()
	var err error
	if c.before, c.after, err = template(s.Signed); err != nil {
		bad("Signed", err.Error(), s.Signed)
	}
	uses := func(what part) bool {
		is := func(p piece) bool { return p.part == what }
		return slices.ContainsFunc(c.before, is) || slices.ContainsFunc(c.after, is)
	}
	if uses(partURL) || uses(partURLHubSpot) {
		c.needsURL = true
	}
	c.extras = c.needsURL || uses(partMethod)
	isURL := func(p piece) bool { return p.part == partURL || p.part == partURLHubSpot }
	c.touching = len(c.before) > 0 && isURL(c.before[len(c.before)-1]) || len(c.after) > 0 && isURL(c.after[0])
	times := 0
	for _, there := range []bool{s.Format.kind == pairs || s.Format.kind == timeList, s.TimeHeader != "", s.TimeField != ""} {
		if there {
			times++
		}
	}
	hasTime := times > 0
	switch {
	case times > 1:
		bad("TimeHeader", "there is more than one time, of which TimeHeader, TimeField and Format say where it is", s.TimeHeader)
	case !hasTime && s.TimeFormat != 0:
		bad("TimeFormat", "there is no time to read", fmt.Sprint(s.TimeFormat))
	case s.TimeField != "" && uses(partTime):
		bad("Signed", "has a {time}, and that is in the body", s.Signed)
	case hasTime && (s.TimeFormat < UnixSeconds || s.TimeFormat > RFC3339):
		bad("TimeFormat", "is required where there is a time", fmt.Sprint(s.TimeFormat))
	case !hasTime && uses(partTime):
		bad("Signed", "has a {time}, and there is none", s.Signed)
	case !hasTime && s.Tolerance > 0:
		bad("Tolerance", "there is no time to judge", s.Tolerance.String())
	case hasTime && s.TimeField == "" && !uses(partTime):
		bad("Signed", "must cover the time", s.Signed)
	}
	if (s.IDHeader != "") != uses(partID) {
		bad("IDHeader", "must be set exactly where Signed has an {id}", s.IDHeader)
	}
	return c, errors.Join(errs...)
}

// needsWindow reports whether a delivery that the store has forgotten could be
// sent again with another body, and has a time by which that can be seen.
func (c *compiled) needsWindow() bool { return c.NeedsStore && c.TimeFormat != 0 }

// movable reports whether a body that comes with this method may have the end of
// the URL in it: nothing tells them apart in what is signed. Content in a GET,
// HEAD or DELETE has no meaning (RFC 9110 sections 9.3.1, 9.3.2 and 9.3.5), so
// that nobody would miss it. Where bodies are JSON, one that does not begin and
// end as such has something else before it, or lacks what is in the URL now.
func (c *compiled) movable(method string, body []byte) bool {
	switch {
	case !c.touching:
		return false
	case method == http.MethodGet, method == http.MethodHead, method == http.MethodDelete:
		return true
	}
	return c.bodyJSON && !looksJSON(body)
}

// looksJSON reports whether b begins and ends as a JSON object or array does.
func looksJSON(b []byte) bool {
	b = bytes.Trim(b, " \t\r\n")
	return len(b) > 1 && (b[0] == '{' && b[len(b)-1] == '}' || b[0] == '[' && b[len(b)-1] == ']')
}

// size is the length of a signature in bytes, or 0 where it varies.
func (a Algorithm) size() int {
	switch a {
	case HMACSHA256, SHA256Legacy, TokenSHA256:
		return 32
	case HMACSHA512, Ed25519, ECDSAP256SHA256Raw:
		return 64
	case HMACSHA1Legacy:
		return 20
	}
	return 0
}

// template splits s at {body}.
func template(s string) (before, after []piece, err error) {
	if s == "" {
		return nil, nil, errors.New("is required")
	}
	out, body := &before, false
	for s != "" {
		text, rest, found := strings.Cut(s, "{")
		if strings.Contains(text, "}") {
			return nil, nil, errors.New("has a brace that belongs to nothing")
		}
		if text != "" {
			*out = append(*out, piece{literal: text})
		}
		if !found {
			break
		}
		name, tail, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, nil, errors.New("has a brace that belongs to nothing")
		}
		s = tail
		if name == "body" {
			if body {
				return nil, nil, errors.New("has more than one {body}")
			}
			body, out = true, &after
			continue
		}
		p, ok := partOf(name)
		if !ok {
			return nil, nil, errors.New("has an unknown name in braces")
		}
		*out = append(*out, piece{part: p})
	}
	if !body {
		return nil, nil, errors.New("must cover the {body}")
	}
	return before, after, nil
}

func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}
