package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"example.com/plainware/upstream"
)

// local has what only somebody on this machine may see and do. For everybody
// else these paths are like any other, and go to the back ends.
func local(own *http.ServeMux, next http.Handler) http.Handler {
	// A page in a browser on this machine is not somebody on this machine.
	guarded := http.NewCrossOriginProtection().Handler(own)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := own.Handler(r); pattern != "" && isLocal(r) {
			guarded.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLocal reports whether r was sent from this machine to an address of it alone.
// Behind a proxy on this machine all clients seem to be here, so a request that
// has come through one is not taken for it. A name in Host that is somebody
// else's is one that was made to lead here.
func isLocal(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header[name] != nil {
			return false
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

// showBreakers tells how the back ends do, in JSON.
func (b *backends) showBreakers(w http.ResponseWriter, r *http.Request) {
	type state struct {
		Target     string    `json:"target"`
		Health     string    `json:"health"` // what the pool says
		Name       string    `json:"name"`
		State      string    `json:"state"`
		Since      time.Time `json:"since"`
		RetryAfter float64   `json:"retry_after"` // in seconds
		Calls      int64     `json:"calls"`       // lately, while closed
		Failures   int64     `json:"failures"`    // of them
		Refused    int64     `json:"refused"`     // since the start, as the next
		Openings   int64     `json:"openings"`
		Shared     bool      `json:"shared"` // with all gateways on the store
	}
	type arm struct {
		Name     string  `json:"name"`
		Percent  float64 `json:"percent"`
		Stopped  bool    `json:"stopped"`
		Requests uint64  `json:"requests"`
		Failures uint64  `json:"failures"`
	}
	var answer struct {
		Breakers []state `json:"breakers"`
		Arms     []arm   `json:"arms,omitempty"` // with a canary
	}
	health := make(map[string]upstream.State)
	for _, p := range b.pools {
		for s := range p.Backends() {
			health[s.Target.ID] = s.State
		}
	}
	now := time.Now()
	for _, g := range b.breakers.all {
		s := g.Stats()
		answer.Breakers = append(answer.Breakers, state{
			Target: g.target, Health: health[g.target].String(), Name: s.Name, State: s.State.String(),
			Since: now.Add(-s.Since).UTC().Truncate(time.Millisecond), RetryAfter: s.RetryAfter.Seconds(),
			Calls: s.Calls, Failures: s.Failures, Refused: s.Refused, Openings: s.Openings,
			Shared: s.Fleet.Synced,
		})
	}
	if b.split != nil {
		for a := range b.split.Arms() {
			answer.Arms = append(answer.Arms, arm{a.Name, float64(a.Share) * 100 / upstream.SplitScale, a.Stopped, a.Requests, a.Failures})
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, answer)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // fails only when the client is gone
}
