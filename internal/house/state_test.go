package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// globals finds what would make two users of one package in one process
// meet, or let the environment configure it: reads of the environment, init
// functions, and exported variables other than error sentinels.
func globals(fset *token.FileSet, f *ast.File) []string {
	var all []string
	add := func(pos token.Pos, what string) {
		p := fset.Position(pos)
		all = append(all, p.Filename+":"+strconv.Itoa(p.Line)+": "+what)
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" {
				add(d.Pos(), "func init runs for whoever imports the package")
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, s := range d.Specs {
				for _, n := range s.(*ast.ValueSpec).Names {
					if n.IsExported() && !strings.HasPrefix(n.Name, "Err") {
						add(n.Pos(), "exported variable "+n.Name+": anyone can change it for everyone")
					}
				}
			}
		}
	}
	access := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv"}
	for _, path := range []string{"os", "syscall"} {
		name := importName(f, path)
		if name == "" {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && slices.Contains(access, sel.Sel.Name) {
				add(sel.Pos(), path+"."+sel.Sel.Name+": the environment configures nothing here")
			}
			return true
		})
	}
	return all
}

// switches are the packages that exist to change the whole process, and what
// each does to that end: an explicit blank import of one is the user's choice.
var switches = map[string][]string{
	"wsproxy/xconnect": {"func init", "syscall.Getenv", "syscall.Setenv"},
}

// permitted reports whether what globals found in a package is what the
// package is for.
func permitted(pkg, violation string) bool {
	return slices.ContainsFunc(switches[pkg], func(what string) bool {
		return strings.Contains(violation, ": "+what)
	})
}

// importName is the name under which f imports path, "" when it does not.
func importName(f *ast.File, path string) string {
	for _, spec := range f.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != path {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path[strings.LastIndex(path, "/")+1:]
	}
	return ""
}

// realSleeps finds time.Sleep in a test file that never enters a synctest
// bubble: such a test is as slow as its sleeps and as flaky as the machine. A
// file enters one by itself, or by a helper with a name that says so.
func realSleeps(fset *token.FileSet, f *ast.File) []string {
	name := importName(f, "time")
	if name == "" || importName(f, "testing/synctest") != "" || callsBubble(f) {
		return nil
	}
	var all []string
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == name {
				p := fset.Position(sel.Pos())
				all = append(all, p.Filename+":"+strconv.Itoa(p.Line)+": time.Sleep outside a synctest bubble")
			}
		}
		return true
	})
	return all
}

func hasTests(f *ast.File) bool {
	return slices.ContainsFunc(f.Decls, func(d ast.Decl) bool {
		fn, ok := d.(*ast.FuncDecl)
		return ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test")
	})
}

func callsBubble(f *ast.File) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if x, ok := call.Fun.(*ast.Ident); ok && strings.Contains(strings.ToLower(x.Name), "bubble") {
				found = true
			}
		}
		return !found
	})
	return found
}

func TestNoGlobalState(t *testing.T) {
	for _, s := range exported(t) {
		for _, f := range s.files {
			for _, v := range globals(s.fset, f) {
				if !permitted(s.path, v) {
					t.Error(v)
				}
			}
		}
	}
}

func TestNoRealSleeps(t *testing.T) {
	for _, s := range packages(t) {
		bubbles := slices.ContainsFunc(s.tests, func(f *ast.File) bool { return importName(f, "testing/synctest") != "" })
		for _, f := range s.tests {
			if bubbles && !hasTests(f) {
				continue // what the package's tests use in their bubbles
			}
			for _, v := range realSleeps(s.fset, f) {
				t.Error(v)
			}
		}
	}
}

func TestGlobals(t *testing.T) {
	for _, c := range []struct {
		name, src, want string
	}{
		{"error sentinel", `var ErrLate = errors.New("late")`, ""},
		{"unexported variable", `var pool sync.Pool`, ""},
		{"exported constant", `const Header = "X"`, ""},
		{"exported local", `func f() { var Header string; _ = Header }`, ""},
		{"method named init", `func (t T) init() {}`, ""},
		{"other Getenv", `import "example.net/os2"; func f() { os2.Getenv("A") }`, ""},
		{"init", `func init() {}`, "func init"},
		{"exported variable", `var Header = "X-Request-Id"`, "exported variable Header"},
		{"in a group", `var ( a int; Max, b = 1, 2 )`, "exported variable Max"},
		{"getenv", `import "os"; func f() string { return os.Getenv("A") }`, "os.Getenv"},
		{"lookupenv", `import "os"; var a, b = os.LookupEnv("A")`, "os.LookupEnv"},
		{"as a value", `import "os"; var get = os.Getenv`, "os.Getenv"},
		{"renamed import", `import sys "os"; var a = sys.Environ()`, "os.Environ"},
		{"through syscall", `import "syscall"; func f() { syscall.Getenv("A") }`, "syscall.Getenv"},
		{"setenv", `import "os"; func f() { os.Setenv("A", "b") }`, "os.Setenv"},
		{"other call of syscall", `import "syscall"; func f() { syscall.Close(1) }`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			check(t, globals, c.src, c.want)
		})
	}
}

func TestPermitted(t *testing.T) {
	for _, c := range []struct {
		pkg, violation string
		want           bool
	}{
		{"wsproxy/xconnect", "x.go:1: func init runs for whoever imports the package", true},
		{"wsproxy/xconnect", "x.go:1: syscall.Setenv: the environment configures nothing here", true},
		{"wsproxy/xconnect", "x.go:1: os.Getenv: the environment configures nothing here", false},
		{"wsproxy/xconnect", "x.go:1: exported variable Enabled: anyone can change it for everyone", false},
		{"wsproxy", "x.go:1: func init runs for whoever imports the package", false},
	} {
		if got := permitted(c.pkg, c.violation); got != c.want {
			t.Errorf("%s in %s: permitted is %t", c.violation, c.pkg, got)
		}
	}
}

func TestRealSleeps(t *testing.T) {
	for _, c := range []struct {
		name, src, want string
	}{
		{"no sleep", `import "time"; var d = time.Second`, ""},
		{"in a bubble", `import ("time"; "testing/synctest"); func f() { synctest.Test(nil, nil); time.Sleep(1) }`, ""},
		{"in a helper's bubble", `import "time"; func f() { inBubble(nil, func() { time.Sleep(1) }) }`, ""},
		{"another Sleep", `func f() { clock.Sleep(1) }`, ""},
		{"real", `import "time"; func f() { time.Sleep(1) }`, "time.Sleep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check(t, realSleeps, c.src, c.want)
		})
	}
}

// check parses src as the body of a file and compares what find says of it.
func check(t *testing.T, find func(*token.FileSet, *ast.File) []string, src, want string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", "package p; "+src, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(find(fset, f), "; ")
	if (want == "") != (got == "") || !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
