package house

import (
	"bytes"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// link matches the target of a Markdown link or image.
var link = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)`)

// relativeLinks lists the files that a Markdown text links to, without
// addresses elsewhere and places within the text itself. What stands in code,
// fenced or in back quotes, is no link.
func relativeLinks(text string) []string {
	var all []string
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(line, -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				all = append(all, m[1])
			} else if u.Scheme == "" && u.Host == "" && u.Path != "" {
				all = append(all, u.Path)
			}
		}
	}
	return all
}

func TestLinksLeadSomewhere(t *testing.T) {
	tree := os.DirFS(root)
	walk(t, func(rel string) {
		if path.Ext(rel) != ".md" {
			return
		}
		text, err := fs.ReadFile(tree, rel)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range relativeLinks(string(text)) {
			file := path.Join(path.Dir(rel), target)
			if _, err := fs.Stat(tree, file); err != nil {
				t.Errorf("%s links to %s, which is not in the tree", rel, target)
			}
		}
	})
}

// row matches a line of the README's package table: | [`name`](dir) | ...
var row = regexp.MustCompile("(?m)^\\|\\s*\\[`([^`]+)`\\]\\(([^)]+)\\)\\s*\\|")

// tableRows lists the packages in a package table. A row whose name is not
// its directory is reported by both.
func tableRows(text string) []string {
	var all []string
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		name, dir := m[1], strings.TrimSuffix(strings.TrimPrefix(m[2], "./"), "/")
		if name != dir {
			name += " (" + dir + ")"
		}
		all = append(all, name)
	}
	return all
}

func TestReadmeListsPackages(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := tableRows(string(readme))
	var packages []string
	for _, s := range exported(t) {
		if s.path != "" {
			packages = append(packages, s.path)
		}
	}
	for _, name := range packages {
		if !slices.Contains(rows, name) {
			t.Errorf("README.md: the package table does not list %s", name)
		}
	}
	for i, name := range rows {
		if !slices.Contains(packages, name) {
			t.Errorf("README.md: the package table lists %s, which is not an exported package", name)
		}
		if slices.Contains(rows[:i], name) {
			t.Errorf("README.md: the package table lists %s twice", name)
		}
	}
}

// TestNoLocalPaths fails when a file names the directory that this tree lies
// in, or somebody's home: such a path works on one machine only.
func TestNoLocalPaths(t *testing.T) {
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	const before = "(?m)(?:^|[\\s\"'`=(:])" // the path begins here, it is no part of a longer one
	here := regexp.MustCompile(before + regexp.QuoteMeta(filepath.ToSlash(top)) + "/")
	home := regexp.MustCompile(before + `/(?:home|Users)/[\w.-]+/`)
	tree := os.DirFS(root)
	walk(t, func(rel string) {
		text, err := fs.ReadFile(tree, rel)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 {
			return // not text
		}
		if here.Match(text) {
			t.Errorf("%s names %s", rel, top)
		}
		if m := home.Find(text); m != nil && !strings.HasSuffix(rel, "_test.go") {
			t.Errorf("%s names a home directory: %s", rel, bytes.TrimSpace(m))
		}
	})
}

func TestRelativeLinks(t *testing.T) {
	const text = "See [the changes](CHANGELOG.md), [reqid](./reqid/) and [a part](docs/x.md#part).\n" +
		"Not [elsewhere](https://example.net/a.md), [here](#stores) or [mail](mailto:a@example.net).\n" +
		"![picture](img/a%20b.png \"title\")\n" +
		"```go\nx := a[i](b)\n```\n" +
		"Again [two](one.md)[three](two.md).\n"
	want := []string{"CHANGELOG.md", "./reqid/", "docs/x.md", "img/a b.png", "one.md", "two.md"}
	if got := relativeLinks(text); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTableRows(t *testing.T) {
	const text = "# kit\n\n| package | what |\n|---|---|\n" +
		"| [`reqid`](reqid) | IDs, see [`timeout`](timeout) |\n" +
		"| [`cookies/session`](./cookies/session/) | sessions |\n" +
		"| [`odd`](elsewhere) | |\n" +
		"| `plain` | no link |\n"
	want := []string{"reqid", "cookies/session", "odd (elsewhere)"}
	if got := tableRows(text); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The program that the README begins with is one that is compiled.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(root, "examples", "hello", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(readme, slices.Concat([]byte("```go\n"), program, []byte("```\n"))) {
		t.Error("README.md does not have the program of examples/hello/main.go in it")
	}
}
