package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

func TestRender(t *testing.T) {
	fset := token.NewFileSet()
	var files []*ast.File
	for name, src := range map[string]string{
		"a.go": `// Package p is documented.
package p

// New makes a T.
func New(c Config) (*T, error) { return &T{}, nil }

// Free floats.
func Free() {}

func hidden() {}

// T is a type.
type T struct {
	n int // secret
}

// Handler wraps.
func (t *T) Handler(next http.Handler) http.Handler { return next }

func (t *T) hidden() {}

type lower struct{ A int }
`,
		"b.go": `package p

// Config configures.
type Config struct {
	// A is documented.
	A, B int // trailing
	c    int
	// F is called.
	F func(w http.ResponseWriter, err error)

	// Longer needs a wider column.
	Longer bool
}

type Phase int

const (
	// One is first.
	One Phase = iota + 1
	Two // second
	three
)

// ErrLate is returned late.
var ErrLate = errors.New("late")

var quiet int

type I interface {
	// M does.
	M()
	hidden()
}
`,
	} {
		f, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	const want = `package p

var ErrLate = errors.New("late")

func Free()

type Config struct {
	A, B   int
	F      func(w http.ResponseWriter, err error)
	Longer bool
	// contains filtered or unexported fields
}

type I interface {
	M()
	// contains filtered or unexported methods
}

type Phase int

const (
	One Phase = iota + 1
	Two
)

type T struct {
	// contains filtered or unexported fields
}

func New(c Config) (*T, error)

func (t *T) Handler(next http.Handler) http.Handler
`
	got := render(t, source{path: "p", fset: fset, files: files})
	if d := lineDiff(want, got); d != "" {
		t.Errorf("%s", d)
	}
}

func TestGoldenName(t *testing.T) {
	for path, want := range map[string]string{"": "root.txt", "reqid": "reqid.txt", "store/sqlitestore": "store.sqlitestore.txt"} {
		if got := goldenName(path); got != want {
			t.Errorf("%q: got %s, want %s", path, got, want)
		}
	}
}

func TestLineDiff(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"equal", "a\nb\n", "a\nb\n", ""},
		{"added", "a\nc\n", "a\nb\nc\n", "+b\n"},
		{"removed", "a\nb\nc\n", "a\nc\n", "-b\n"},
		{"changed", "a\nb\nc\n", "a\nx\nc\n", "-b\n+x\n"},
		{"from nothing", "", "a\n", "+a\n"},
		{"no newline at the end", "a", "a\n", "+\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := lineDiff(c.old, c.new); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
