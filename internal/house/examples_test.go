package house

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// constructors lists the exported functions of a package that make something
// from a configuration: New… with two results, an exported type and an error.
func constructors(s source) []string {
	var all []string
	for _, f := range s.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "New") {
				continue
			}
			results := fn.Type.Results
			if results.NumFields() != 2 || !exportedType(results.List[0].Type) {
				continue
			}
			if last, ok := results.List[1].Type.(*ast.Ident); ok && last.Name == "error" {
				all = append(all, fn.Name.Name)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// exportedType reports whether x is T, *T or T[...] with an exported T.
func exportedType(x ast.Expr) bool {
	for {
		switch t := x.(type) {
		case *ast.StarExpr:
			x = t.X
		case *ast.IndexExpr:
			x = t.X
		case *ast.IndexListExpr:
			x = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return false
		}
	}
}

// needDriver are packages whose examples cannot run here, since they need a
// database driver. They are compiled all the same.
var needDriver = []string{"store/pgstore", "store/sqlitestore"}

// withoutExample lists the constructors that no runnable example shows. An
// example runs when it has an output comment. The example of the package is
// that of New.
func withoutExample(s source) []string {
	shown := map[string]bool{}
	for _, e := range doc.Examples(s.tests...) {
		if e.Output == "" && !e.EmptyOutput && !slices.Contains(needDriver, s.path) {
			continue
		}
		name, _, _ := strings.Cut(e.Name, "_") // ExampleNew_suffix
		if name == "" {
			name = "New" // Example, Example_suffix
		}
		shown[name] = true
	}
	return slices.DeleteFunc(constructors(s), func(name string) bool { return shown[name] })
}

func TestConstructorsHaveExamples(t *testing.T) {
	for _, s := range exported(t) {
		for _, name := range withoutExample(s) {
			t.Errorf("%s.%s has no example with output; write Example%s in its example_test.go", s.path, name, name)
		}
	}
}

func TestWithoutExample(t *testing.T) {
	const code = `package p
func New(c Config) (*T, error) { return nil, nil }
func NewTransport(c Config) (*Transport, error) { return nil, nil }
func NewManager[V any](c Config) (*Manager[V], error) { return nil, nil }
func NewContext(ctx, id string) Context { return nil }
func NewPair() (A, B) { return 0, 0 }
func NewHidden() (*hidden, error) { return nil, nil }
func (t *T) NewStream() (*T, error) { return nil, nil }
`
	for _, c := range []struct {
		name, tests, want string
	}{
		{"none", ``, "New NewManager NewTransport"},
		{"all", `func ExampleNew() {
	// Output: a
}
func ExampleNewManager_second() {
	// Output:
}
func ExampleNewTransport() {
	// Unordered output: a
}`, ""},
		{"of the package", `func Example() {
	// Output: a
}`, "NewManager NewTransport"},
		{"of the package, with a suffix", `func Example_chain() {
	// Output: a
}`, "NewManager NewTransport"},
		{"of the type", `func ExampleTransport() {
	// Output: a
}`, "New NewManager NewTransport"},
		{"not run", `func ExampleNew() {}`, "New NewManager NewTransport"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := source{fset: token.NewFileSet()}
			for name, src := range map[string]string{"p.go": code, "example_test.go": "package p_test\n" + c.tests} {
				f, err := parser.ParseFile(s.fset, name, src, parser.ParseComments)
				if err != nil {
					t.Fatal(err)
				}
				if name == "p.go" {
					s.files = append(s.files, f)
				} else {
					s.tests = append(s.tests, f)
				}
			}
			if got := strings.Join(withoutExample(s), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
