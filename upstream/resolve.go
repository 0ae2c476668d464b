package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Resolver finds out the targets of a Pool at run time: [DNS], or anything
// else that can.
type Resolver interface {
	// Watch calls set with the complete list of targets whenever it changes,
	// until ctx is done, and returns then. Where the answer cannot be had, or is
	// empty for no good reason, it keeps silent, and the Pool what it has. Calls
	// of set must not overlap, nor come after Watch has returned. A Pool whose
	// Watch returns early keeps the last targets. A list that is refused, as by
	// [Pool.Update], is logged and not tried again.
	//
	// Requests that run on a target that is gone end undisturbed, its idle
	// connections are closed, and it gets no new requests.
	Watch(ctx context.Context, set func([]Target)) error
}

// A Refresher is a [Resolver] that can be asked to look again at once. The Pool
// does so when a connection could not be made. Refresh returns immediately and
// limits itself how often it follows.
type Refresher interface {
	Refresh()
}

// Lookup is the part of [net.Resolver] that [DNS] needs.
type Lookup interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// DNSConfig configures [DNS].
type DNSConfig struct {
	// Target is what each address becomes a copy of, with Addr set to it. Its
	// URL names the host to look up, which stays the one that certificates are
	// verified against; ID and Addr must be empty. Required.
	Target Target

	// SRV is the full name of SRV records to look up in place of the URL's
	// host, such as "_http._tcp.api.internal" (RFC 2782). The records give host,
	// port, priority (added to Target's) and weight (in place of Target's); the
	// names in them are resolved when a connection is made. Records whose port
	// is 0 are left out; of several for one host and port the first in priority
	// counts.
	SRV string

	// Network is "ip4" or "ip6" to use addresses of one family only; empty is
	// both. It has no effect with SRV.
	Network string

	// Interval is the time between lookups, give or take 10 %: zero is 30 s,
	// the least is 1 s. After a failure, and on Refresh, the next lookup comes
	// after 5 s if that is sooner.
	Interval time.Duration

	// Timeout limits one lookup: zero is 5 s.
	Timeout time.Duration

	// Lookup does the lookups: nil is net.DefaultResolver. A lookup that has
	// no answer keeps the last one in use.
	Lookup Lookup

	// Logger is told, once, when lookups begin to fail, when they succeed
	// again, and when SRV records are left out: nil discards that.
	Logger *slog.Logger
}

const (
	defaultDNSInterval = 30 * time.Second
	defaultDNSTimeout  = 5 * time.Second
	dnsRetry           = 5 * time.Second
)

// DNS is a [Resolver] and [Refresher] that looks up a name time and again: A and
// AAAA records, or SRV. Each address is a target of its own. It is safe for
// concurrent use, by several Pools too.
type DNS struct {
	c      DNSConfig
	host   string
	port   string
	log    *slog.Logger
	lookup Lookup

	portless atomic.Bool // there were such records at the last lookup

	mu       sync.Mutex
	watchers map[chan struct{}]struct{}
}

// NewDNS returns a DNS, or an error that names every problem in c. It does not
// look anything up yet.
func NewDNS(c DNSConfig) (*DNS, error) {
	var p problems
	d := &DNS{c: c, log: c.Logger, lookup: c.Lookup, watchers: make(map[chan struct{}]struct{})}
	checkTarget(&p, "DNSConfig.Target", c.Target)
	switch e, err := parseTarget(c.Target, true); {
	case err != nil:
		p.add("DNSConfig.Target.URL", err.Error(), redacted(c.Target.URL))
	case e.network != "tcp":
		p.add("DNSConfig.Target.URL", "must name a host", redacted(c.Target.URL))
	default:
		d.host, d.port, _ = net.SplitHostPort(e.dialKey)
	}
	if c.Target.ID != "" {
		p.add("DNSConfig.Target.ID", "must be empty", strconv.Quote(c.Target.ID))
	}
	if c.Target.Addr != "" {
		p.add("DNSConfig.Target.Addr", "must be empty", strconv.Quote(c.Target.Addr))
	}
	switch c.Network {
	case "":
		d.c.Network = "ip"
	case "ip", "ip4", "ip6":
	default:
		p.add("DNSConfig.Network", `must be "ip4", "ip6" or empty`, strconv.Quote(c.Network))
	}
	if c.Interval < 0 || c.Interval > 0 && c.Interval < time.Second {
		p.add("DNSConfig.Interval", "must be at least 1s", c.Interval)
	}
	if c.Timeout < 0 {
		p.add("DNSConfig.Timeout", "must not be negative", c.Timeout)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	d.c.Target.Labels = maps.Clone(c.Target.Labels)
	d.c.Interval = zeroIs(c.Interval, defaultDNSInterval)
	d.c.Timeout = zeroIs(c.Timeout, defaultDNSTimeout)
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.lookup == nil {
		d.lookup = net.DefaultResolver
	}
	return d, nil
}

// Refresh makes those that watch look again, but not within five seconds of
// when they last did.
func (d *DNS) Refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ch := range d.watchers {
		select {
		case ch <- struct{}{}:
		default: // it is on its way
		}
	}
}

// Watch implements [Resolver].
func (d *DNS) Watch(ctx context.Context, set func([]Target)) error {
	refresh := make(chan struct{}, 1)
	d.mu.Lock()
	d.watchers[refresh] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.watchers, refresh)
		d.mu.Unlock()
	}()

	var last []Target
	failing := false
	for {
		began := time.Now()
		targets, err := d.resolve(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait := d.c.Interval
		switch {
		case err != nil:
			wait = min(wait, dnsRetry)
			if !failing {
				d.log.Warn("upstream: lookup failed, the last answer stays in use", "name", d.name(), "err", err)
			}
		default:
			if failing {
				d.log.Info("upstream: lookup succeeded again", "name", d.name())
			}
			if last == nil || !slices.EqualFunc(targets, last, sameTarget) {
				set(slices.Clone(targets))
				last = targets
			}
		}
		failing = err != nil
		if !d.sleep(ctx, refresh, began, jitter(wait)) {
			return context.Cause(ctx)
		}
	}
}

// sleep waits until it is time for the next lookup. It returns false if ctx was
// done before.
func (d *DNS) sleep(ctx context.Context, refresh <-chan struct{}, began time.Time, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-refresh:
			refresh = nil // once is enough
			timer.Reset(max(0, min(time.Until(began.Add(dnsRetry)), time.Until(began.Add(wait)))))
		}
	}
}

// name is what is looked up.
func (d *DNS) name() string {
	return cmp.Or(d.c.SRV, d.host)
}

// sameTarget tells whether two targets that a DNS made are the same.
func sameTarget(a, b Target) bool {
	return a.Addr == b.Addr && a.Weight == b.Weight && a.Priority == b.Priority
}

// resolve returns the targets of one lookup, sorted, or an error if it has none.
func (d *DNS) resolve(ctx context.Context) ([]Target, error) {
	ctx, cancel := context.WithTimeout(ctx, d.c.Timeout)
	defer cancel()
	find := d.addresses
	if d.c.SRV != "" {
		find = d.records
	}
	targets, err := find(ctx)
	if err != nil {
		return nil, err
	}
	if len(targets) == 0 {
		return nil, errors.New("no addresses")
	}
	// Of several records for one address the first in priority counts, in whatever
	// order they come.
	slices.SortFunc(targets, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.Weight, a.Weight))
	})
	return slices.CompactFunc(targets, func(a, b Target) bool { return a.Addr == b.Addr }), nil
}

func (d *DNS) addresses(ctx context.Context) ([]Target, error) {
	addrs, err := d.lookup.LookupNetIP(ctx, d.c.Network, d.host)
	if err != nil {
		return nil, err
	}
	targets := make([]Target, 0, len(addrs))
	for _, a := range addrs {
		t := d.c.Target
		t.Addr = net.JoinHostPort(a.Unmap().String(), d.port)
		targets = append(targets, t)
	}
	return targets, nil
}

func (d *DNS) records(ctx context.Context) ([]Target, error) {
	_, records, err := d.lookup.LookupSRV(ctx, "", "", d.c.SRV)
	if err != nil && len(records) == 0 {
		return nil, err
	}
	targets := make([]Target, 0, len(records))
	portless := false
	for _, r := range records {
		host := strings.ToLower(r.Target) // servers may answer in any case (RFC 4343)
		if n := len(host); n > 0 && host[n-1] == '.' {
			host = host[:n-1]
		}
		if host == "" {
			// RFC 2782: the service is decidedly not there. Whoever sends
			// requests to it all the same has no better place for them.
			return nil, fmt.Errorf("the service is not available at this domain")
		}
		if r.Port == 0 {
			portless = true // it cannot be dialled, but the others can
			continue
		}
		t := d.c.Target
		t.Addr = net.JoinHostPort(host, strconv.Itoa(int(r.Port)))
		t.Priority += int(r.Priority)
		t.Weight = max(1, int(r.Weight))
		targets = append(targets, t)
	}
	if !d.portless.Swap(portless) && portless {
		d.log.Warn("upstream: records without a port are left out", "name", d.name())
	}
	return targets, nil
}
