package main

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/plainware/upstream"
)

// canary is a back end that gets a share of the clients, to see how it does.
type canary struct {
	target *url.URL
	share  int // of upstream.SplitScale
}

// backends are the back ends, how requests are divided among them, and what is
// known of them.
type backends struct {
	http.RoundTripper
	pools    []*upstream.Pool
	split    *upstream.Split // nil: no canary
	breakers *breakers
}

// callDefaults are how a gateway calls back ends of which nothing is known. A
// request is sent again only where the first time can have had no effect, or the
// second does no harm; see [upstream.Retry].
func callDefaults() upstream.Config {
	return upstream.Config{
		// A hung back end is a 504. Counted from the end of the upload.
		Conns: upstream.Conns{HeaderTimeout: 30 * time.Second},
		// Whether a back end takes connections is all that can be asked of
		// each; see -health. One that is down is asked more often, so that it is
		// used again soon.
		Check: &upstream.Check{Kind: upstream.CheckTCP, UnhealthyInterval: time.Second},
		// Whether requests fail is for the breakers to judge. Two judges of the
		// same thing would keep from each other what they need to see.
		Outlier: upstream.Outlier{Off: true},
	}
}

// newBackends makes a pool of the targets, with a breaker for each, and, with a
// canary, a pool for that beside it.
func newBackends(cfg config) (*backends, error) {
	b := &backends{breakers: newBreakers(cfg)}
	stable, err := b.pool(cfg, cfg.targets...)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.RoundTripper = stable
	if cfg.canary == nil {
		return b, nil
	}
	next, err := b.pool(cfg, cfg.canary.target)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.split, err = upstream.NewSplit(upstream.SplitConfig{
		Arms: []upstream.Arm{
			{Name: "stable", Base: stable},
			{Name: "canary", Base: next, Share: cfg.canary.share},
		},
		// A client stays where it is, by its API key or by a cookie. With a
		// larger share further clients join them, and nobody leaves.
		Key: func(r *http.Request) (uint64, bool) {
			key := r.Header.Get("X-Api-Key")
			return upstream.Hash(key), key != ""
		},
		Cookie:   "gateway-canary",
		Insecure: true, // the gateway speaks plain HTTP; over HTTPS leave it out
		Salt:     "gateway",
		// A canary that fails more than the others has no clients any more.
		Guard: &upstream.Guard{OnStop: func(s upstream.ArmStats) {
			cfg.logger.Warn("the canary fails too often and gets no more requests",
				"requests", s.Requests, "failures", s.Failures)
		}},
	})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.RoundTripper = b.split
	return b, nil
}

// pool makes a pool of targets.
func (b *backends) pool(cfg config, targets ...*url.URL) (*upstream.Pool, error) {
	c := cfg.calls
	c.Picker = upstream.RoundRobin() // each pool counts its own turns
	c.Logger = cfg.logger
	paths := make(map[string]*url.URL)
	for _, u := range targets {
		// The URL of a target ends at its host. Its path, if it has one, is put
		// before those of the requests to it.
		id := u.String()
		c.Targets = append(c.Targets, upstream.Target{ID: id, URL: u.Scheme + "://" + u.Host})
		paths[id] = u
	}
	c.Wrap = func(t upstream.Target, base http.RoundTripper) (http.RoundTripper, error) {
		base, err := newBelow(paths[t.ID], connector{paths[t.ID], base})
		if err != nil {
			return nil, err
		}
		return b.breakers.wrap(t.ID, base)
	}
	p, err := upstream.New(c)
	if err != nil {
		return nil, err
	}
	b.pools = append(b.pools, p)
	return p, nil
}

// Close ends what newBackends has started, and closes the connections.
func (b *backends) Close() error {
	var err error
	for _, p := range b.pools {
		err = errors.Join(err, p.Close())
	}
	return errors.Join(err, b.breakers.Close())
}

// below reports whether there is a back end that gets requests below a path.
func (cfg *config) below() bool {
	if c := cfg.canary; c != nil && belowPath(c.target) != "" {
		return true
	}
	return slices.ContainsFunc(cfg.targets, func(u *url.URL) bool { return belowPath(u) != "" })
}

// belowPath is the escaped path that u puts before those of requests, without a
// slash at the end.
func belowPath(u *url.URL) string { return strings.TrimSuffix(u.EscapedPath(), "/") }

// below sends requests to paths below its own.
type below struct {
	path, escaped string // without a slash at the end
	http.RoundTripper
}

// newBelow puts the path of u before those of all requests.
func newBelow(u *url.URL, base http.RoundTripper) (http.RoundTripper, error) {
	escaped := belowPath(u)
	if escaped == "" {
		return base, nil
	}
	path, err := url.PathUnescape(escaped)
	return below{path, escaped, base}, err
}

func (b below) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.Path, "/") {
		return b.RoundTripper.RoundTrip(r) // OPTIONS *
	}
	out, u := r.WithContext(r.Context()), *r.URL
	u.Path, u.RawPath = b.path+u.Path, b.escaped+u.EscapedPath()
	if u.Opaque != "" {
		u.Opaque = b.escaped + u.Opaque // a path that url.URL would write in another way
	}
	out.URL = &u
	return b.RoundTripper.RoundTrip(out)
}
