package cookies

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	idBytes = 3 // of a key id
	idSize  = 4 // the same in base64url
)

// stage is where in its life a key stands.
type stage int

const (
	incoming stage = iota // accepted, not yet used to write
	primary               // writes
	fallback              // accepted, and what it wrote is written again
)

// key is one key of a cookie, derived for its suite and bound to its name.
type key struct {
	id    string // idSize characters, as in the value
	stage stage
	box   box

	// data is what is authenticated beside the plaintext, up to and without the
	// length of the binding; unbound is the same with a binding of length 0.
	data, unbound []byte
}

// additional returns the authenticated data for a binding, in buf where there is
// one.
func (k *key) additional(buf []byte, binding string) []byte {
	if binding == "" {
		return k.unbound
	}
	buf = append(buf[:0], k.data...)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(binding)))
	return append(buf, binding...)
}

// ring holds the keys of a cookie. The first one writes.
type ring struct {
	prefix string // version and dot
	keys   []*key
}

// find returns the key with an id, or nil.
func (r *ring) find(id string) *key {
	for _, k := range r.keys {
		if k.id == id {
			return k
		}
	}
	return nil
}

// newRing derives what a cookie of this name needs of its keys, or returns every
// problem with them.
func newRing(name string, suite Suite, signed bool, keys, early [][]byte) (*ring, []error) {
	r := &ring{prefix: suite.Version + "."}
	var errs []error
	if len(keys) == 0 {
		errs = append(errs, errors.New("cookies: Keys: is empty (got 0 keys)"))
	}
	masters := make([][]byte, 0, len(keys)+len(early))
	for i, master := range slices.Concat(keys, early) {
		field, at := fmt.Sprintf("Keys[%d]", i), fallback
		switch {
		case i >= len(keys):
			field, at = fmt.Sprintf("Incoming[%d]", i-len(keys)), incoming
		case i == 0:
			at = primary
		}
		if err := checkKey(master); err != nil {
			errs = append(errs, fmt.Errorf("cookies: %s: %w", field, err))
			continue
		}
		if slices.ContainsFunc(masters, func(m []byte) bool { return bytes.Equal(m, master) }) {
			errs = append(errs, fmt.Errorf("cookies: %s: repeats an earlier key", field))
			continue
		}
		masters = append(masters, master)
		k, err := deriveKey(name, suite, signed, master)
		if err != nil {
			return nil, append(errs, err) // the suite's, and the same for all keys
		}
		if r.find(k.id) != nil {
			errs = append(errs, fmt.Errorf("cookies: %s: has the id of an earlier key; generate another (got %s)", field, k.id))
			continue
		}
		k.stage = at
		r.keys = append(r.keys, k)
	}
	return r, errs
}

func deriveKey(name string, suite Suite, signed bool, master []byte) (*key, error) {
	label := "cookies/" + suite.Version
	id, err := hkdf.Key(sha256.New, master, nil, "cookies/"+versionKeyID, idBytes)
	if err != nil {
		return nil, fmt.Errorf("cookies: Keys: %w", err)
	}
	sub, err := hkdf.Key(sha256.New, master, nil, label, KeySize)
	if err != nil {
		return nil, fmt.Errorf("cookies: Keys: %w", err)
	}

	k := &key{id: base64.RawURLEncoding.EncodeToString(id)}
	if signed {
		k.box = newMACBox(sub)
	} else if k.box, err = newAEADBox(suite, sub); err != nil {
		return nil, err
	}
	k.data = append([]byte(label), 0)
	k.data = append(k.data, id...)
	k.data = binary.BigEndian.AppendUint16(k.data, uint16(len(name)))
	k.data = slices.Clip(append(k.data, name...))
	k.unbound = append(slices.Clone(k.data), 0, 0)
	return k, nil
}

// standardSuite is the zero Suite spelled out.
func standardSuite() Suite {
	return Suite{Version: versionSealed, New: func(key []byte) (cipher.AEAD, error) { return newXAES(key) }}
}
