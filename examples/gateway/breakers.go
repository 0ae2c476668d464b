package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"example.com/plainware/breaker"
	"example.com/plainware/store"
	"example.com/plainware/timeout"
	"example.com/plainware/upstream"
)

// breakers are a circuit breaker for each back end. An open one says that
// nothing was sent, and the pool sends the request to another back end, whatever
// its method.
type breakers struct {
	config breaker.Config // of each
	logger *slog.Logger
	all    []guarded
}

// guarded is a back end with its breaker.
type guarded struct {
	target string
	*breaker.Breaker
}

// breakerDefaults are right for a gateway with little to do: of five calls within
// ten seconds half must have failed. A busy one has a better idea of its back ends
// with the twenty that are asked for by default.
func breakerDefaults() breaker.Config { return breaker.Config{MinCalls: 5} }

// newBreakers has breakers share their state through the store: what one gateway
// has found out about a back end holds for the others, and after a restart. That
// needs a store that keeps what it is given: Redis does with appendonly yes, and
// without eviction.
func newBreakers(cfg config) *breakers {
	b := &breakers{config: cfg.breaker, logger: cfg.logger}
	b.config.Classify = judge
	if cfg.store == nil {
		return b
	}
	if _, err := store.Keep(cfg.store); err != nil {
		cfg.logger.Warn("breakers are this gateway's own, the store cannot keep them", "error", err)
		return b
	}
	b.config.Store = cfg.store
	return b
}

// judge leaves out what is no back end's fault, or clients could open breakers at
// will: an upload that breaks off, a limit of our own, connections that are closed
// because the gateway stops. A limit of time that has passed says something about
// the back end only if nobody else was waited for: no client that sends its body
// slowly, and none that takes an answer slowly.
func judge(r breaker.Result) breaker.Outcome {
	if e, ok := errors.AsType[*upstream.Error](r.Err); ok && !e.Kind.BackendFault() {
		return breaker.Ignored
	}
	if _, ok := errors.AsType[*timeout.Error](r.Err); ok {
		if r.Status != 0 || r.Request.Body != nil && r.Request.Body != http.NoBody {
			return breaker.Ignored
		}
	}
	return breaker.Classify(r)
}

// wrap makes the breaker of a target. It is called once for each, before the
// first request.
func (b *breakers) wrap(target string, base http.RoundTripper) (http.RoundTripper, error) {
	c := b.config
	c.Name, c.Base = breakerName(target), base
	c.OnStateChange = func(ch breaker.Change) {
		level := slog.LevelInfo
		if ch.To == breaker.Open {
			level = slog.LevelWarn
		}
		attrs := []slog.Attr{
			slog.String("target", target), slog.String("from", ch.From.String()),
			slog.String("reason", ch.Reason), slog.Bool("fleet", ch.Fleet),
		}
		if ch.OpenFor > 0 {
			attrs = append(attrs, slog.Duration("for", ch.OpenFor))
		}
		b.logger.LogAttrs(context.Background(), level, "breaker is "+ch.To.String(), attrs...)
	}
	br, err := breaker.New(c)
	if err != nil {
		return nil, err
	}
	b.all = append(b.all, guarded{target, br})
	return br, nil
}

// breakerName is a name by which all gateways on one store know a back end. What
// it is made of must be the same for all of them.
func breakerName(target string) string {
	_, host, _ := strings.Cut(target, "://")
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, host)
	sum := sha256.Sum256([]byte(target))
	return readable[:min(len(readable), 40)] + "-" + hex.EncodeToString(sum[:6])
}

// Close ends what the breakers have started.
func (b *breakers) Close() error {
	var err error
	for _, g := range b.all {
		err = errors.Join(err, g.Breaker.Close())
	}
	return err
}
