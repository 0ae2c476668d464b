package house

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// leaves are the packages that may import something other than the standard
// library, and what.
var leaves = map[string][]string{
	"cookies/xchacha": {"golang.org/x/crypto"},
	"upstream/h3":     {"github.com/quic-go/quic-go"},
	"wsproxy/wsh2":    {"golang.org/x/net/http2"},
	"wsproxy/wsh3":    {"github.com/quic-go/quic-go"},
}

// startFirst are the packages that must be initialized before net/http reads
// the environment, and the only imports that leave them early enough.
var startFirst = map[string][]string{
	"wsproxy/xconnect": {"syscall"},
}

// requirements are the modules that go.mod may require directly.
var requirements = []string{"github.com/quic-go/quic-go", "golang.org/x/crypto", "golang.org/x/net"}

// testSupport are the packages that exist for tests alone.
var testSupport = []string{"internal/house", "internal/memnet", "internal/mwtest"}

// unit is a package, or the tests of one, with what it imports directly.
type unit struct {
	path    string // inside the module, "" for the root package
	test    bool
	imports []dependency
}

// dependency is one imported package.
type dependency struct {
	path     string // inside the module when kit, the full import path otherwise
	kit      bool
	standard bool
}

func (u unit) String() string {
	name := u.path
	if name == "" {
		name = "the root package"
	}
	if u.test {
		return "tests of " + name
	}
	return name
}

// violations judges every import of every unit by itself. That is enough for
// the indirect ones too: a package of the kit that is reached indirectly is a
// unit as well.
func violations(units []unit) []string {
	var all []string
	for _, u := range units {
		for _, d := range u.imports {
			if why := forbidden(u, d); why != "" {
				all = append(all, fmt.Sprintf("%s: imports %s: %s", u, d.path, why))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// forbidden says why u must not import d, or "".
func forbidden(u unit, d dependency) string {
	if early, ok := startFirst[u.path]; ok && !u.test && !slices.Contains(early, d.path) {
		return "of all packages this one may import only " + strings.Join(early, ", ")
	}
	switch {
	case d.standard:
		return ""
	case !d.kit:
		for _, allowed := range leaves[u.path] {
			if within(d.path, allowed) {
				return ""
			}
		}
		if allowed, ok := leaves[u.path]; ok {
			return "of other modules this package may import only " + strings.Join(allowed, ", ")
		}
		return "not in the standard library; only these may leave it: " +
			strings.Join(slices.Sorted(maps.Keys(leaves)), ", ")
	case d.path == u.path && u.test:
		return ""
	case d.path == "":
		return "no package imports the root package"
	case slices.Contains(testSupport, d.path) && !u.test:
		if u.path == "internal/mwtest" && d.path == "internal/memnet" {
			return ""
		}
		return "made for tests, and this is not a test"
	case u.path == "" && u.test:
		return "" // the root's tests and examples compose everything
	case within(u.path, "internal"):
		if u.test && internal(d.path) {
			return ""
		}
		return "internal packages import no package of the kit"
	case internal(d.path):
		return ""
	case d.path == "store":
		return ""
	case u.test && d.path == "store/storetest":
		return ""
	case u.test && u.path == "wsproxy" && d.path == "wsproxy/xconnect":
		return "" // a test binary is a process of its own, and chooses for itself
	case within(u.path, d.path):
		return "" // a subpackage and its parent
	}
	return "an exported package imports no other, except store and its own parent"
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// units turns go list records into the units of the module.
func units(module string, all []listed) []unit {
	standard := map[string]bool{}
	for _, p := range all {
		standard[p.ImportPath] = p.Standard
	}
	var us []unit
	for _, p := range all {
		if p.Module == nil || p.Module.Path != module || strings.HasSuffix(p.ImportPath, ".test") {
			continue
		}
		u := unit{path: inside(module, p.ImportPath), test: p.ForTest != ""}
		if u.test {
			// Covers both "p [p.test]" and "p_test [p.test]". A package that is
			// compiled again only because it imports p is ForTest p too, but
			// judging it as its own non-test record is right: that one is
			// listed as well.
			name := bare(p.ImportPath)
			if name != p.ForTest && name != p.ForTest+"_test" {
				continue
			}
			u.path = inside(module, p.ForTest)
		}
		for _, path := range p.Imports {
			path = bare(path)
			d := dependency{path: path, standard: standard[path], kit: within(path, module)}
			if d.kit {
				d.path = inside(module, path)
			}
			u.imports = append(u.imports, d)
		}
		us = append(us, u)
	}
	return us
}

// bare takes the " [p.test]" off the import path of a test variant.
func bare(path string) string {
	path, _, _ = strings.Cut(path, " ")
	return path
}

func TestBoundaries(t *testing.T) {
	module := modulePath(t)
	// Files with build constraints have imports of their own.
	for _, platform := range []string{"linux/amd64", "windows/amd64", "js/wasm", "wasip1/wasm"} {
		t.Run(platform, func(t *testing.T) {
			goos, goarch, _ := strings.Cut(platform, "/")
			env := []string{"GOOS=" + goos, "GOARCH=" + goarch, "CGO_ENABLED=0"}
			us := units(module, list(t, env, "-deps", "-test", "./..."))
			if len(us) < 2 {
				t.Fatalf("go list reports %d packages of %s", len(us), module)
			}
			for _, v := range violations(us) {
				t.Error(v)
			}
		})
	}
}

// modFile is what these tests use of go mod edit -json.
type modFile struct {
	Require []struct {
		Path     string
		Indirect bool
	}
	Replace []json.RawMessage
	Tool    []struct{ Path string }
}

// misrequired says what of a go.mod is not allowed in the root module.
func misrequired(m modFile) []string {
	var all []string
	for _, r := range m.Require {
		if !r.Indirect && !slices.Contains(requirements, r.Path) {
			all = append(all, fmt.Sprintf("requires %s: only %s may be required directly", r.Path, strings.Join(requirements, ", ")))
		}
	}
	for _, tool := range m.Tool {
		all = append(all, fmt.Sprintf("tool %s: a tool is a requirement; run it with go run %s@version", tool.Path, tool.Path))
	}
	if len(m.Replace) > 0 {
		all = append(all, "replace: has no effect for whoever imports the module")
	}
	return all
}

func TestRequirements(t *testing.T) {
	var m modFile
	if err := json.Unmarshal(goTool(t, nil, "mod", "edit", "-json"), &m); err != nil {
		t.Fatal(err)
	}
	for _, v := range misrequired(m) {
		t.Errorf("go.mod: %s", v)
	}
}
