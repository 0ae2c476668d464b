package reqid_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"example.com/plainware/reqid"
)

// reqid 12: another library reads V7 as version 7 of RFC 9562's variant, made
// now, in the same text form.
func TestV7Parses(t *testing.T) {
	for range 10_000 {
		before := time.Now().UnixMilli()
		id := reqid.V7()
		after := time.Now().UnixMilli()
		u, err := uuid.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		if u.Version() != 7 || u.Variant() != uuid.RFC4122 || u.String() != id {
			t.Fatalf("%s: version %d, variant %v", id, u.Version(), u.Variant())
		}
		// google/uuid's Time reads version 7 in 100 ns since 1582.
		sec, nsec := u.Time().UnixTime()
		if ms := sec*1000 + nsec/1e6; ms < before || ms > after {
			t.Fatalf("%s: made at %d ms, read as %d ms", id, before, ms)
		}
	}
}
