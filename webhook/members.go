package webhook

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"unicode"
)

// members are the members of a JSON object of which a signature covers some, by
// their exact names.
type members map[string]json.RawMessage

// maxNames is the most members of an object. Those of providers have a dozen, and
// the additionalData of Adyen some dozens.
const maxNames = 256

// object reads a JSON object. It refuses one in which two names are the same or
// differ in case alone: encoding/json takes "message" for Message, and of two
// the last, where other parsers take the first. What one of them verifies, the
// handler's would not be bound to read. For the same reason it refuses a name
// that differs in case alone from one of known, which are those that a
// signature covers or is found by: a signed member may be absent, and the
// handler would read the other in its place. And it refuses one with more than
// maxNames: nothing is known yet of whoever has sent it, and each costs time.
func object(raw []byte, known ...string) (members, bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	m, folded := members{}, map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil || len(m) == maxNames {
			return nil, false
		}
		name := t.(string) // or Token would have failed
		for _, k := range known {
			if name != k && strings.EqualFold(name, k) {
				return nil, false
			}
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil || folded[fold(name)] {
			return nil, false
		}
		m[name], folded[fold(name)] = value, true
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, false
	}
	_, err := dec.Token()
	return m, err == io.EOF
}

// read decodes a member into v. Without that member it leaves v as it is.
func (m members) read(name string, v any) bool {
	raw, there := m[name]
	return !there || json.Unmarshal(raw, v) == nil
}

// text returns a member that is a string, or "".
func (m members) text(name string) (s string) {
	if !m.read(name, &s) {
		return ""
	}
	return s
}

// fold returns what is the same for all names that are equal under Unicode case
// folding, as strings.EqualFold has it.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r { // it begins again with the smallest
				return next
			}
			r = next
		}
	}, name)
}
