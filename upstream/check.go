package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// CheckKind says how a [Check] asks.
type CheckKind uint8

const (
	// CheckHTTP sends a request over the target's own protocol.
	CheckHTTP CheckKind = iota

	// CheckTCP makes a connection and closes it. [New] and [Pool.Update] refuse
	// targets that [Config].Transport has a tripper for, with connections of its
	// own.
	CheckTCP

	// CheckGRPC calls grpc.health.v1.Health/Check, which must answer SERVING.
	// The target must speak HTTP/2; [New] and [Pool.Update] refuse those of the
	// schemes http and unix.
	CheckGRPC
)

// Check configures active health checks. Each back end is asked on its own and
// at once when it is added; the first answer alone decides, the ones after it
// count up to Fail or Pass. Until the first answer it is taken for healthy.
//
// Checks see to back ends that get no requests because they are down. The
// failures of requests themselves are noticed faster; see [Outlier].
//
// A check takes no place of those of [Conns].MaxInFlight, but an HTTP/1.1
// connection for as long as it takes.
//
// It does not pass through [Config].Wrap: what a wrapper would add to it,
// such as credentials, must be in Header, and a circuit breaker neither hears of
// it nor holds it up.
type Check struct {
	// Kind is how to ask. The zero Kind is CheckHTTP.
	Kind CheckKind

	// Path is the path of an HTTP check and may have a query: it must begin
	// with a slash. Empty is "/".
	Path string

	// Method is the method of an HTTP check. Empty is GET.
	Method string

	// Host is the host that an HTTP or gRPC check asks for. Empty is what the
	// target has without a client's wish.
	Host string

	// Header is added to an HTTP or gRPC check. Its Host would not be sent, and is
	// refused: see the field.
	Header http.Header

	// Expect judges the response to an HTTP check: what is not nil is a
	// failure. It may read the body, of which there are 64 KiB at most. Nil
	// takes the statuses 200 to 399. It is called concurrently.
	Expect func(*http.Response) error

	// Service is the service that a gRPC check asks for. Empty is the server
	// as a whole.
	Service string

	// Interval is the time from the end of one check to the next while the
	// peer is healthy; zero is 10 s. UnhealthyInterval is that while it is not;
	// zero is 5 s. Both are taken give or take 10 %; the least is 10 ms.
	Interval          time.Duration
	UnhealthyInterval time.Duration

	// Timeout is the limit for one check; zero is 2 s.
	Timeout time.Duration

	// Fail is how many failures in a row make a peer unhealthy; zero is 3.
	// Pass is how many successes make it healthy again; zero is 2.
	Fail int
	Pass int
}

const (
	defaultCheckInterval  = 10 * time.Second
	defaultCheckUnhealthy = 5 * time.Second
	defaultCheckTimeout   = 2 * time.Second
	defaultCheckFail      = 3
	defaultCheckPass      = 2
	minCheckInterval      = 10 * time.Millisecond
	maxCheckBody          = 64 << 10
	checkUserAgent        = "plainware-upstream-check"
)

// check returns what is wrong with c.
func (c *Check) check() problems {
	var p problems
	if c.Kind > CheckGRPC {
		p.add("Check.Kind", "must be one of the constants", c.Kind)
	}
	if c.Path != "" {
		_, err := url.ParseRequestURI(c.Path)
		odd := strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' })
		if err != nil || odd || c.Path[0] != '/' || strings.HasPrefix(c.Path, "//") {
			p.add("Check.Path", "must be a path that begins with one slash", fmt.Sprintf("%q", c.Path))
		}
	}
	if c.Kind != CheckHTTP {
		if c.Path != "" {
			p.add("Check.Path", "is for HTTP checks only", fmt.Sprintf("%q", c.Path))
		}
		if c.Method != "" {
			p.add("Check.Method", "is for HTTP checks only", fmt.Sprintf("%q", c.Method))
		}
		if c.Expect != nil {
			p.add("Check.Expect", "is for HTTP checks only", "a function")
		}
	}
	if c.Kind != CheckGRPC && c.Service != "" {
		p.add("Check.Service", "is for gRPC checks only", fmt.Sprintf("%q", c.Service))
	}
	if len(c.Service) > maxGRPCService {
		p.add("Check.Service", "must be at most 16000 bytes long", fmt.Sprintf("%d bytes", len(c.Service)))
	}
	if _, err := http.NewRequest(c.Method, "/", nil); err != nil {
		p.add("Check.Method", "must be a method", fmt.Sprintf("%q", c.Method))
	}
	for name, values := range c.Header {
		if !isToken(name) {
			p.add("Check.Header", "must have names that are tokens", fmt.Sprintf("%q", name))
		}
		if strings.EqualFold(name, "Host") {
			p.add("Check.Header", "must not have a Host, which is Check.Host", fmt.Sprintf("%q", values))
		}
		for _, v := range values {
			if !isFieldValue(v) {
				p.add("Check.Header", "must have no control characters in a value", fmt.Sprintf("%q", name))
			}
		}
	}
	if !isHost(c.Host) {
		p.add("Check.Host", "must be a host with or without a port", fmt.Sprintf("%q", c.Host))
	}
	interval := func(field string, d time.Duration) {
		if d < 0 || d > 0 && d < minCheckInterval {
			p.add(field, "must be at least 10ms", d)
		}
	}
	interval("Check.Interval", c.Interval)
	interval("Check.UnhealthyInterval", c.UnhealthyInterval)
	interval("Check.Timeout", c.Timeout)
	if c.Fail < 0 {
		p.add("Check.Fail", "must not be negative", c.Fail)
	}
	if c.Pass < 0 {
		p.add("Check.Pass", "must not be negative", c.Pass)
	}
	return p
}

// suits reports whether a target of protocol p can pass such a check at all.
func (k CheckKind) suits(p protocol) bool {
	switch k {
	case CheckGRPC:
		return p != protoH1
	case CheckTCP:
		return p != protoForeign
	}
	return true
}

func (c Check) ready() Check {
	c.Header = c.Header.Clone()
	c.Interval = zeroIs(c.Interval, defaultCheckInterval)
	c.UnhealthyInterval = zeroIs(c.UnhealthyInterval, defaultCheckUnhealthy)
	c.Timeout = zeroIs(c.Timeout, defaultCheckTimeout)
	c.Fail = zeroIs(c.Fail, defaultCheckFail)
	c.Pass = zeroIs(c.Pass, defaultCheckPass)
	if c.Path == "" {
		c.Path = "/"
	}
	return c
}

// checkerConfig is what a checker needs of the Pool.
type checkerConfig struct {
	check Check

	// probe sends a request to this back end, past limits, queue, retries and
	// statistics. The request's URL has a path and a query; scheme, host, and
	// Host where it is empty, are for probe to set.
	probe func(context.Context, *Peer, *http.Request) (*http.Response, error)

	// connect makes a connection to this back end and closes it.
	connect func(context.Context, *Peer) error

	// report is selector.setHealthy.
	report func(p *Peer, healthy bool, reason string)
}

// checker runs the active checks, one goroutine per peer.
type checker struct {
	c  checkerConfig
	wg sync.WaitGroup

	mu     sync.Mutex
	under  map[string]*checked // by ID
	closed bool
}

// checked is a peer under check.
type checked struct {
	peer   atomic.Pointer[Peer]
	cancel context.CancelFunc
}

func newChecker(c checkerConfig) *checker {
	c.check = c.check.ready()
	return &checker{c: c, under: make(map[string]*checked)}
}

// set makes peers those that are checked. One of the same ID and owner as before
// goes on where it was.
func (c *checker) set(peers []*Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	stay := make(map[string]bool, len(peers))
	for _, p := range peers {
		stay[p.ID] = true
		if old := c.under[p.ID]; old != nil {
			if old.peer.Load().owner == p.owner {
				old.peer.Store(p)
				continue
			}
			old.cancel() // what it is about to say is about the peer that it has
		}
		ctx, cancel := context.WithCancel(context.Background())
		k := &checked{cancel: cancel}
		k.peer.Store(p)
		c.under[p.ID] = k
		c.wg.Go(func() { c.run(ctx, k) })
	}
	for id, k := range c.under {
		if !stay[id] {
			k.cancel()
			delete(c.under, id)
		}
	}
}

// close ends all checks and waits for them.
func (c *checker) close() {
	c.mu.Lock()
	c.closed = true
	for _, k := range c.under {
		k.cancel()
	}
	clear(c.under)
	c.mu.Unlock()
	c.wg.Wait()
}

// run checks one peer until ctx is done.
func (c *checker) run(ctx context.Context, k *checked) {
	healthy, row := true, 0 // row is how many answers in a row said otherwise
	timer := time.NewTimer(0)
	defer timer.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := c.ask(ctx, k.peer.Load())
		if ctx.Err() != nil {
			return
		}
		need := c.c.check.Fail
		if !healthy {
			need = c.c.check.Pass
		}
		row++
		switch {
		case first:
			healthy, row = err == nil, 0
			c.c.report(k.peer.Load(), healthy, reasonOf(err))
		case (err == nil) == healthy:
			row = 0
		case row >= need:
			healthy, row = !healthy, 0
			c.c.report(k.peer.Load(), healthy, reasonOf(err))
		}
		interval := c.c.check.Interval
		if !healthy {
			interval = c.c.check.UnhealthyInterval
		}
		timer.Reset(jitter(interval))
	}
}

func reasonOf(err error) string {
	if err == nil {
		return "check passed"
	}
	return "check failed: " + err.Error()
}

// ask does one check.
func (c *checker) ask(ctx context.Context, p *Peer) error {
	ctx, cancel := context.WithTimeout(ctx, c.c.check.Timeout)
	defer cancel()
	var err error
	switch c.c.check.Kind {
	case CheckTCP:
		err = c.c.connect(ctx, p)
	case CheckGRPC:
		err = c.askGRPC(ctx, p)
	default:
		err = c.askHTTP(ctx, p)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer in %v", c.c.check.Timeout)
	}
	return err
}

func (c *checker) askHTTP(ctx context.Context, p *Peer) error {
	req, err := http.NewRequestWithContext(ctx, c.c.check.Method, c.c.check.Path, nil)
	if err != nil {
		return err
	}
	res, err := c.c.probe(ctx, p, c.prepare(req))
	if err != nil {
		return err
	}
	body := res.Body
	defer body.Close()
	res.Body = io.NopCloser(io.LimitReader(body, maxCheckBody))
	if expect := c.c.check.Expect; expect != nil {
		err = expect(res)
	} else if res.StatusCode < 200 || res.StatusCode > 399 {
		err = fmt.Errorf("status %d", res.StatusCode)
	}
	// To the end, so that the connection can be used again.
	if _, readErr := io.Copy(io.Discard, res.Body); err == nil {
		err = readErr
	}
	return err
}

// prepare sets what both kinds of request have.
func (c *checker) prepare(req *http.Request) *http.Request {
	req.Header.Set("User-Agent", checkUserAgent)
	for k, vs := range c.c.check.Header {
		req.Header[http.CanonicalHeaderKey(k)] = append([]string(nil), vs...)
	}
	req.Host = c.c.check.Host
	return req
}
