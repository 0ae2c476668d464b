package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the top of the module, seen from the directory that go test runs
// this package in.
const root = "../.."

// goTool runs the go command at the top of the module, with extra environment
// settings, and returns what it printed.
func goTool(t *testing.T, env []string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

// modulePath is read and not written down, so that renaming the module is one
// command.
func modulePath(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(string(goTool(t, nil, "list", "-m")))
}

// listed is what these tests use of a go list record.
type listed struct {
	ImportPath string
	ForTest    string
	Standard   bool
	Imports    []string
	Module     *struct{ Path string }
}

// list runs go list -json for the arguments and decodes its stream of records.
func list(t *testing.T, env []string, args ...string) []listed {
	t.Helper()
	const fields = "-json=ImportPath,ForTest,Standard,Imports,Module"
	dec := json.NewDecoder(bytes.NewReader(goTool(t, env, append([]string{"list", fields}, args...)...)))
	var all []listed
	for {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

// source is one parsed package directory. path is relative to the module, and
// empty for the root package.
type source struct {
	path  string
	fset  *token.FileSet
	files []*ast.File // without tests, whatever the build constraints say
	tests []*ast.File
}

// packages parses every package of the module.
func packages(t *testing.T) []source {
	t.Helper()
	module := modulePath(t)
	var all []source
	for _, p := range list(t, nil, "./...") {
		all = append(all, parse(t, inside(module, p.ImportPath)))
	}
	slices.SortFunc(all, func(a, b source) int { return strings.Compare(a.path, b.path) })
	return all
}

// exported parses the packages that a user of the module can import.
func exported(t *testing.T) []source {
	t.Helper()
	return slices.DeleteFunc(packages(t), func(s source) bool { return internal(s.path) })
}

func parse(t *testing.T, rel string) source {
	t.Helper()
	s := source{path: rel, fset: token.NewFileSet()}
	names, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(rel), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := parser.ParseFile(s.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.go") {
			s.tests = append(s.tests, f)
		} else {
			s.files = append(s.files, f)
		}
	}
	return s
}

// inside is the path of a package inside the module, "" for the root package.
func inside(module, importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

// internal reports whether a path inside the module has an internal element.
func internal(rel string) bool {
	return slices.Contains(strings.Split(rel, "/"), "internal")
}

// walk calls f with the slash-separated path of every file of the tree,
// leaving out what belongs to version control.
func walk(t *testing.T, f func(rel string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git":
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.Type().IsRegular():
			f(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
