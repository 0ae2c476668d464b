//go:build !race

// The race detector lets a sync.Pool lose things at random, so allocations say
// nothing under it.

package cookies_test

import (
	"testing"

	"example.com/plainware/cookies"
)

// What the package comment says about cost. Of a sealed value, two allocations
// are the standard library's cipher for one message.
func TestAllocations(t *testing.T) {
	for _, tc := range []struct {
		name                        string
		make                        func(cookies.Config[[]byte]) (*cookies.Cookie[[]byte], error)
		encode, decode, get, absent float64
	}{
		{"sealed", cookies.NewSealed[[]byte], 3, 3, 3, 0},
		{"signed", cookies.NewSigned[[]byte], 1, 1, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := rawBytes(t, tc.make)
			text, err := c.Encode(payload, "tenant")
			if err != nil {
				t.Fatal(err)
			}
			unbound, err := c.Encode(payload, "")
			if err != nil {
				t.Fatal(err)
			}
			with, without := request("a=b; __Host-cart="+unbound+"; c=d"), request("a=b; c=d")
			for name, run := range map[string]struct {
				f    func() error
				most float64
			}{
				"Encode":            {func() error { _, err := c.Encode(payload, "tenant"); return err }, tc.encode},
				"Decode":            {func() error { _, _, err := c.Decode(text, "tenant"); return err }, tc.decode},
				"Get":               {func() error { _, _, err := c.Get(with); return err }, tc.get},
				"Get, no cookie":    {func() error { c.Get(without); return nil }, tc.absent},
				"Decode, not valid": {func() error { c.Decode("junk", ""); return nil }, 0},
			} {
				var err error
				if got := testing.AllocsPerRun(200, func() { err = run.f() }); got > run.most || err != nil {
					t.Errorf("%s: %v allocations, %v", name, got, err)
				}
			}
		})
	}
}
