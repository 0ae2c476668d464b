package session_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
)

// keeper is a store that notes what is written through its view that keeps.
type keeper struct {
	store.Store
	mu   sync.Mutex
	kept []string
}

func (k *keeper) Keep() (store.Store, error) { return view{k.Store, k}, nil }

type view struct {
	store.Store
	k *keeper
}

func (v view) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	v.note(map[bool]string{true: "delete", false: "write"}[new == nil], key)
	return v.Store.CompareAndSwap(ctx, key, old, new, ttl)
}

func (v view) Delete(ctx context.Context, key string) error {
	v.note("delete", key)
	return v.Store.Delete(ctx, key)
}

func (v view) note(what, key string) {
	v.k.mu.Lock()
	defer v.k.mu.Unlock()
	if strings.Contains(key, "/user/") {
		what += " mark"
	}
	v.k.kept = append(v.k.kept, what)
}

// What must not be undone by eviction or power loss goes through store.Keep: the
// mark of RevokeUser, and the deletion of what Login and Logout end. The
// sessions themselves do not: those who come back in numbers could not be
// evicted then.
func TestKept(t *testing.T) {
	k := &keeper{Store: memory(t)}
	m := newManager(t, session.Config[cart]{Store: k})
	b := newBrowser(t, m)
	for _, c := range []struct {
		name string
		do   func()
		want []string
	}{
		{"create", func() { b.add("pen") }, nil},
		{"update", func() { b.add("ink") }, nil},
		{"rotate", func() { b.rotate() }, nil},
		{"login", func() { b.login("ann") }, []string{"delete"}},
		{"revoke", func() { must(t, m.RevokeUser(t.Context(), "ann")) }, []string{"write mark"}},
		{"login again", func() { b.login("ann") }, nil},
		{"logout", func() { b.logout() }, []string{"delete"}},
	} {
		k.kept = nil
		c.do()
		if !slices.Equal(k.kept, c.want) {
			t.Errorf("%s: %q through the view that keeps, want %q", c.name, k.kept, c.want)
		}
	}
}
