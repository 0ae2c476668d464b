package upstream

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// idleTimes is how long a back end keeps idle connections: as it says in
// Keep-Alive fields, or else as it has been seen to. Stopping earlier than the
// back end avoids the race between its closing and our next request, which
// no retry can repair for a request that must not be repeated.
type idleTimes struct {
	announced atomic.Int64 // nanoseconds, 0 is nothing

	// Guarded by the set's lock.
	last    time.Duration // the age at which a connection was last found closed
	at      time.Duration // when that was, since the pool's epoch
	learned time.Duration // the age that two of them agreed on; 0 is none
	until   time.Duration // how long that is believed
}

const (
	keepAliveMargin = time.Second
	learnFor        = 10 * time.Minute
	learnMin        = 500 * time.Millisecond
)

// limit returns how long a connection may be idle: configured, or less. 0 is
// no limit.
func (i *idleTimes) limit(configured, now time.Duration) time.Duration {
	limit := configured
	lower := func(d time.Duration) {
		if limit == 0 || d < limit {
			limit = d
		}
	}
	if a := time.Duration(i.announced.Load()); a > 0 {
		lower(earlier(a))
	} else if i.learned > 0 && now < i.until {
		lower(earlier(i.learned))
	}
	return limit
}

// earlier is when to stop for a back end that closes after d.
func earlier(d time.Duration) time.Duration { return max(d-keepAliveMargin, d/2) }

// observe takes note of a connection that the back end closed after it had been
// idle for age. One alone may be a restart; two of nearly the same age, at
// different times, are a rule.
func (i *idleTimes) observe(age, now time.Duration) {
	if age < learnMin {
		return
	}
	if near(age, i.last) && now-i.at > 100*time.Millisecond {
		i.learned, i.until = min(age, i.last), now+learnFor
	}
	i.last, i.at = age, now
}

func near(a, b time.Duration) bool { return max(a, b)-min(a, b) <= max(a, b)/20 }

// announce reads the values of a response's Keep-Alive field.
func (i *idleTimes) announce(values []string) {
	for _, v := range values {
		if d, ok := keepAliveTimeout(v); ok {
			i.announced.Store(int64(d))
			return
		}
	}
}

// keepAliveTimeout returns the timeout parameter of a Keep-Alive field, such as
// "timeout=5, max=100" (RFC 2068 section 19.7.1.1). Zero is not taken for an
// announcement, and beyond a day nothing is gained.
func keepAliveTimeout(v string) (time.Duration, bool) {
	for part := range strings.SplitSeq(v, ",") {
		name, value, ok := strings.Cut(part, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "timeout") {
			continue
		}
		n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 32)
		if err != nil || n == 0 || n > 86400 {
			return 0, false
		}
		return time.Duration(n) * time.Second, true
	}
	return 0, false
}
