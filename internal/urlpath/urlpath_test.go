package urlpath

import "testing"

func TestBadBytes(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "/a/b": false, "/a%20b": false, "a=1&b=%23": false, "/caf\xc3\xa9": false, "/|": false,
		"/a b": true, "/a#b": true, "/a\r\nX: y": true, "/a\tb": true, "/\x00": true, "/\x7f": true, " ": true,
	} {
		if got := BadBytes(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestDotSegments(t *testing.T) {
	for path, want := range map[string]bool{
		"": false, "/": false, "/a/b": false, "/a.b": false, "/.a": false, "/..a": false, "/a..": false, "/...": false,
		"/.../": false, "/a./b": false, "/.well-known/x": false, "/a;.": false,
		".": true, "..": true, "/.": true, "/..": true, "/./a": true, "/../a": true, "/a/..": true, "/a/../b": true,
		`/a\..\b`: true, `\.`: true, "/..;/a": true, "/.;x/a": true, "/a/..;x": true,
	} {
		if got := DotSegments(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}
