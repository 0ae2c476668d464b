package sqlitestore

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// The steps between versions run in their order, up and down, in one
// transaction with the new number, and an error undoes all of them.
func TestMigrationSteps(t *testing.T) {
	steps := []migration{
		{up: []string{"up {T}_1"}, down: []string{"down {T}_1"}},
		{up: []string{"up {T}_2a", "up {T}_2b"}, down: []string{"down {T}_2b", "down {T}_2a"}},
		{up: []string{"up {T}_3"}, down: []string{"down {T}_3"}},
	}
	broken := errors.New("broken")
	for _, c := range []struct {
		have, to int64
		down     bool
		want     string
		fails    string // the statement that does
		err      string
	}{
		{have: 0, to: 3, want: "BEGIN,up t_1,up t_2a,up t_2b,up t_3,COMMIT"},
		{have: 1, to: 3, want: "BEGIN,up t_2a,up t_2b,up t_3,COMMIT"},
		{have: 3, to: 3, want: "BEGIN,COMMIT"},
		{have: 3, to: 1, down: true, want: "BEGIN,down t_3,down t_2b,down t_2a,COMMIT"},
		{have: 2, to: 0, down: true, want: "BEGIN,down t_2b,down t_2a,down t_1,DROP,COMMIT"},
		{have: 0, to: 0, down: true, want: "BEGIN,COMMIT"},
		{have: 3, to: 2, want: "BEGIN,ROLLBACK", err: "have version 3, which is above 2"},
		{have: 4, to: 3, down: true, want: "BEGIN,ROLLBACK", err: "have version 4, and this program knows versions up to 3"},
		{have: 0, to: 3, fails: "up t_2b", want: "BEGIN,up t_1,up t_2a,up t_2b,ROLLBACK", err: "migration of the tables t_*: broken"},
		{have: 3, to: 0, down: true, fails: "down t_1", want: "BEGIN,down t_3,down t_2b,down t_2a,down t_1,ROLLBACK", err: "broken"},
		{have: 0, to: 3, fails: "COMMIT", want: "BEGIN,up t_1,up t_2a,up t_2b,up t_3,COMMIT,ROLLBACK", err: "broken"},
	} {
		f := &fakeDriver{version: c.have}
		if c.fails != "" {
			f.hook = func(text string) error {
				if text == c.fails {
					return broken
				}
				return nil
			}
		}
		conn, err := open(t.Context(), Config{DB: openFake(t, f)})
		if err != nil {
			t.Fatal(err)
		}
		f.statements()
		err = conn.migrate(t.Context(), "t", steps, int(c.to), c.down)
		conn.discard()
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%d to %d: %v, want %q", c.have, c.to, err, c.err)
		}
		got := f.statements("BEGIN", "COMMIT", "ROLLBACK", "up", "down", "DROP")
		for i := range got {
			got[i] = strings.TrimSuffix(got[i], " IMMEDIATE")
			if strings.HasPrefix(got[i], "DROP") {
				got[i] = "DROP"
			}
		}
		if want := strings.Split(c.want, ","); !slices.Equal(got, want) {
			t.Errorf("%d to %d: executed %q, want %q", c.have, c.to, got, want)
		}
		if want := c.to; c.err == "" && c.to > 0 && f.version != want {
			t.Errorf("%d to %d: the version is %d", c.have, c.to, f.version)
		}
		if f.conns != 0 {
			t.Errorf("%d connections are open", f.conns)
		}
	}
}
