package breaker

import (
	"encoding/json"
	"errors"
	"time"

	"example.com/plainware/store"
)

// record is the state of a fleet as it is kept in the Store, under one key and
// changed by CompareAndSwap only. Half-open is no state of its own: it is Open
// after Until.
type record struct {
	Gen    int64  `json:"gen"`              // one more with each change
	State  string `json:"state"`            // "open" or "closed"
	At     int64  `json:"at"`               // when it was written, ns since 1970 on the store's clock
	Until  int64  `json:"until,omitempty"`  // the end, likewise; 0 where there is none
	Streak int    `json:"streak,omitempty"` // how often it has opened in a row
	Reason string `json:"reason,omitempty"`
	Force  bool   `json:"force,omitempty"`
	Author string `json:"author,omitempty"` // of Force
}

const (
	recordOpen   = "open"
	recordClosed = "closed"

	// maxRecord is far above what is ever written.
	maxRecord = 8 << 10
	maxStreak = 1 << 20

	// maxText bounds the author and the reason of an Override.
	maxText = 512

	// recordTTL is for how long a state that nobody changes is remembered.
	recordTTL = 24 * time.Hour
)

var errRecord = errors.New("breaker: the store has something else in the place of the state")

// parseRecord reads what encode has written. It refuses a record that nobody could
// read when it is written again, as it is after the store has forgotten it: a byte
// can become six.
func parseRecord(raw []byte) (record, error) {
	var r record
	if len(raw) > maxRecord || json.Unmarshal(raw, &r) != nil || !r.valid() ||
		len(raw) > maxRecord/8 && len(r.encode()) > maxRecord {
		return record{}, errRecord
	}
	return r, nil
}

func (r *record) valid() bool {
	switch {
	case r.Gen < 1 || r.Gen >= store.MaxCount, r.At < 0, r.Until < 0, r.Streak < 0 || r.Streak > maxStreak:
		return false
	case r.State == recordOpen:
		return r.Force || r.Until > 0
	}
	return r.State == recordClosed
}

func (r *record) encode() []byte {
	raw, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers and strings only
	}
	return raw
}

// ttl is how long the record is kept from now on.
func (r *record) ttl(now int64) time.Duration {
	switch {
	case r.Force && r.Until == 0:
		return 0
	case r.Until > now:
		return recordTTL + time.Duration(r.Until-now)
	}
	return recordTTL
}

// open reports whether calls are refused, or on trial, at an instant of the
// store's clock.
func (r *record) open(now int64) bool {
	return r.State == recordOpen && (!r.Force || r.forced(now))
}

// forced reports whether the record holds whatever happens.
func (r *record) forced(now int64) bool {
	return r.Force && (r.Until == 0 || r.Until > now)
}
