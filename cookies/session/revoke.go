package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A mark is a number under a user's key, 0 if there is none. Login writes the
// mark as it is into the session, and a session is valid as long as there is no
// other one. No clock decides: a mark is in nanoseconds since 1970 only so that
// it is none of those that have expired.

// markMargin is how much longer than Absolute a mark is kept.
const markMargin = time.Hour

var errBadMark = errors.New("a mark has a wrong length")

func (m *Manager[T]) markKey(user string) string { return key(m.marks, sha256.Sum256([]byte(user))) }

func (m *Manager[T]) mark(ctx context.Context, user string) (uint64, error) {
	raw, ok, err := m.kept.Get(ctx, m.markKey(user))
	if err != nil || !ok {
		return 0, err
	}
	if len(raw) != 8 {
		return 0, errBadMark // whatever it says, it says that there was one
	}
	return binary.BigEndian.Uint64(raw), nil
}

// RevokeUser ends all sessions of a user: each that was logged in before the
// call is none for requests that ask after it, in all processes, and also after
// a power loss where the store survives that. It takes one write, however many
// sessions there are, of a mark that is kept for Absolute and an hour, or for
// ever if Absolute has no limit.
//
// A Login after it is valid. To log out the user everywhere else, as after a
// change of password, call RevokeUser and then Login in the same request. A
// request that has loaded its session before goes on with it, and what it saves
// is not revived.
//
// With an error, ErrUnavailable, the sessions may or may not be revoked.
func (m *Manager[T]) RevokeUser(ctx context.Context, userID string) error {
	if m.marks == "" {
		return errors.New("session: RevokeUser: NoRevokeUser is set")
	}
	if userID == "" || len(userID) > maxUser {
		return fmt.Errorf("session: RevokeUser: userID: must have 1 to %d bytes (got %d)", maxUser, len(userID))
	}
	var ttl time.Duration
	if m.absolute > 0 {
		ttl = m.absolute + markMargin
	}
	key := m.markKey(userID)
	for try := range attempts {
		if err := pause(ctx, try); err != nil {
			return because(ErrUnavailable, err)
		}
		old, ok, err := m.kept.Get(ctx, key)
		if err != nil {
			return because(ErrUnavailable, err)
		}
		mark := uint64(time.Now().UnixNano())
		if !ok {
			old = nil
		} else if len(old) == 8 {
			mark = max(mark, binary.BigEndian.Uint64(old)+1)
		}
		set, err := m.kept.CompareAndSwap(ctx, key, old, binary.BigEndian.AppendUint64(nil, mark), ttl)
		if err != nil {
			return because(ErrUnavailable, err)
		}
		if set {
			return nil
		}
	}
	return because(ErrUnavailable, errBusy)
}
