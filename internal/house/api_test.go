package house

import (
	"bytes"
	"flag"
	"go/ast"
	"go/doc"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files in api/")

const updateCommand = "go test ./internal/house -run TestAPI -update"

// TestAPI compares what each package exports with its file in api/, so that a
// change of the API is seen, and reviewed like code.
func TestAPI(t *testing.T) {
	dir := filepath.Join(root, "api")
	want := map[string]bool{}
	for _, s := range exported(t) {
		got := render(t, s)
		if got == "" {
			continue
		}
		name := goldenName(s.path)
		want[name] = true
		file := filepath.Join(dir, name)
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v\nnew package? run: %s", err, updateCommand)
			continue
		}
		if d := lineDiff(string(golden), got); d != "" {
			t.Errorf("the exported API of %s is not what api/%s says:\n%sif this is meant, run: %s", s.path, name, d, updateCommand)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if want[filepath.Base(file)] {
			continue
		}
		if !*update {
			t.Errorf("api/%s belongs to no package; run: %s", filepath.Base(file), updateCommand)
		} else if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}

// goldenName is the file in api/ for a package.
func goldenName(path string) string {
	if path == "" {
		path = "root"
	}
	return strings.ReplaceAll(path, "/", ".") + ".txt"
}

// render prints the exported declarations of a package in the order of go doc:
// constants, variables, functions, then each type with its constants,
// variables, functions and methods. It is empty when nothing is exported. Of a
// struct with unexported fields it says only that there are some.
func render(t *testing.T, s source) string {
	t.Helper()
	p, err := doc.NewFromFiles(s.fset, s.files, s.path)
	if err != nil {
		t.Fatal(err)
	}
	var decls []string
	add := func(d ast.Decl) {
		text := plain(t, s, d)
		// Files for different platforms may declare the same thing.
		if !slices.Contains(decls, text) {
			decls = append(decls, text)
		}
	}
	values := func(vs []*doc.Value) {
		for _, v := range vs {
			add(v.Decl)
		}
	}
	funcs := func(fs []*doc.Func) {
		for _, f := range fs {
			add(f.Decl)
		}
	}
	values(p.Consts)
	values(p.Vars)
	funcs(p.Funcs)
	for _, typ := range p.Types {
		add(typ.Decl)
		values(typ.Consts)
		values(typ.Vars)
		funcs(typ.Funcs)
		funcs(typ.Methods)
	}
	if len(decls) == 0 {
		return ""
	}
	return "package " + p.Name + "\n\n" + strings.Join(decls, "\n\n") + "\n"
}

// plain formats a declaration so that nothing about its comments shows: they
// are removed, and so are the blank lines and the column breaks they leave.
func plain(t *testing.T, s source, d ast.Decl) string {
	t.Helper()
	stripComments(d)
	var b bytes.Buffer
	if err := format.Node(&b, s.fset, d); err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.Split(b.String(), "\n"), func(line string) bool {
		return strings.TrimSpace(line) == ""
	})
	text, err := format.Source([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// stripComments removes every comment attached below a declaration; go/doc
// has already removed function bodies and what is not exported.
func stripComments(d ast.Decl) {
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			n.Doc = nil
		case *ast.FuncDecl:
			n.Doc = nil
		case *ast.Field:
			n.Doc, n.Comment = nil, nil
		case *ast.ValueSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.TypeSpec:
			n.Doc, n.Comment = nil, nil
		}
		return true
	})
}

// lineDiff shows the lines that only one text has, marked - (old) and + (new), and
// nothing when the texts are equal.
func lineDiff(old, new string) string {
	if old == new {
		return ""
	}
	a, b := strings.Split(old, "\n"), strings.Split(new, "\n")
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out strings.Builder
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out.WriteString("-" + a[i] + "\n")
			i++
		default:
			out.WriteString("+" + b[j] + "\n")
			j++
		}
	}
	return out.String()
}
