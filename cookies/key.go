package cookies

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	// KeySize is the least number of bytes in a key, and what [GenerateKey]
	// makes.
	KeySize = 32

	// keyPrefix begins a key in text, so that a scanner of repositories and
	// logs can recognise one.
	keyPrefix = "ck1_"

	// incomingPrefix marks a key that only reads yet, in the text for ParseKeys.
	incomingPrefix = "incoming:"

	// maxKeyText bounds one key in text. HMAC hashes longer keys anyway.
	maxKeyText = 1024
)

// GenerateKey returns [KeySize] random bytes. Like crypto/rand.Read it never
// fails: where the system has no randomness the program ends.
func GenerateKey() []byte {
	key := make([]byte, KeySize)
	rand.Read(key)
	return key
}

// FormatKey returns the text form of a key, for a secret store or an environment
// variable: ck1_ and base64url without padding (RFC 4648 section 5).
func FormatKey(key []byte) string {
	return keyPrefix + base64.RawURLEncoding.EncodeToString(key)
}

// ParseKey returns the key that [FormatKey] has written, of 32 bytes or more.
// White space around it, such as the newline at the end of a file, does not
// matter. The error never contains a part of the text.
func ParseKey(text string) ([]byte, error) {
	key, err := parseKey(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("cookies: key: %w", err)
	}
	return key, nil
}

// ParseKeys reads the keys for [Config.Keys] and [Config.Incoming] from one
// text: the value of an environment variable, or the content of a mounted file.
// Keys in the form of [FormatKey] are separated by white space or commas; the
// first writes, those after it are accepted, and one with incoming: before it
// is accepted before it writes anywhere. From # to the end of its line is a
// comment.
//
//	incoming:ck1_5p…  # from Monday
//	ck1_Zk…           # writes
//	ck1_ax…           # until the first of May
//
// All problems are reported at once, by the position of the key; the error
// never contains a part of the text. A text without a key that writes is an
// error.
func ParseKeys(text string) (keys, incoming [][]byte, err error) {
	var errs []error
	position := 0
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for field := range strings.FieldsFuncSeq(line, separates) {
			position++
			field, early := strings.CutPrefix(field, incomingPrefix)
			key, err := parseKey(field)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("cookies: key %d: %w", position, err))
			case early:
				incoming = append(incoming, key)
			default:
				keys = append(keys, key)
			}
		}
	}
	if len(keys) == 0 && errs == nil {
		errs = append(errs, errors.New("cookies: keys: none that writes"))
	}
	if errs != nil {
		return nil, nil, errors.Join(errs...)
	}
	return keys, incoming, nil
}

func separates(r rune) bool {
	return r == ' ' || r == '\t' || r == '\r' || r == '\n' || r == ','
}

// parseKey is strict: one key has one text.
func parseKey(text string) ([]byte, error) {
	if text == "" {
		return nil, errors.New("is empty")
	}
	if len(text) > maxKeyText {
		return nil, fmt.Errorf("is longer than %d characters (got %d)", maxKeyText, len(text))
	}
	body, ok := strings.CutPrefix(text, keyPrefix)
	if !ok {
		return nil, fmt.Errorf("does not begin with %s", keyPrefix)
	}
	// The decoder skips line breaks, and its own error tells where in the text
	// it stopped.
	key, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || strings.ContainsAny(body, "\r\n") {
		return nil, errors.New("is not base64url without padding")
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return key, nil
}

// checkKey refuses what cannot be a random key.
func checkKey(key []byte) error {
	if len(key) < KeySize {
		return fmt.Errorf("has fewer than %d bytes (got %d)", KeySize, len(key))
	}
	for _, b := range key {
		if b != 0 {
			return nil
		}
	}
	return errors.New("is all zeros")
}
