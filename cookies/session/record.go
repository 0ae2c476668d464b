package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// What is in the store:
//
//	plainware/session/1/<Name>/<hash of id>         a record, or an alias
//	plainware/session/1/<Name>/user/<hash of user>  a mark, see revoke.go
//
//	record  1, 0, created[8], issued[8], seen[8], deadline[8], epoch[8], len(user)[2], user, value
//	alias   1, 1, use-by[8], hash of the next id[32]
//
// Integers are big-endian, instants nanoseconds since 1970. The hash is
// SHA-256, in a key as base64url without padding.
const (
	keySpace = "plainware/session/1/"
	version  = 1
	isRecord = 0
	isAlias  = 1

	recordHead = 2 + 5*8 + 2
	aliasSize  = 2 + 8 + sha256.Size
	maxUser    = 1024
)

// record is a session.
type record struct {
	created  int64  // when the user logged in, or the session began
	issued   int64  // when this id was made
	seen     int64  // last use, as far as it was written
	deadline int64  // when it ends however it is used; 0 for never
	epoch    uint64 // the user's mark at login
	user     string // "" for nobody
	payload  []byte // the value as encoded; empty for the zero value
}

// alias stands where a record stood until it got a new id.
type alias struct {
	useBy int64 // until when it leads requests on
	next  [sha256.Size]byte
}

func (r *record) encode() []byte {
	b := make([]byte, 0, recordHead+len(r.user)+len(r.payload))
	b = append(b, version, isRecord)
	b = binary.BigEndian.AppendUint64(b, uint64(r.created))
	b = binary.BigEndian.AppendUint64(b, uint64(r.issued))
	b = binary.BigEndian.AppendUint64(b, uint64(r.seen))
	b = binary.BigEndian.AppendUint64(b, uint64(r.deadline))
	b = binary.BigEndian.AppendUint64(b, r.epoch)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.user)))
	b = append(b, r.user...)
	return append(b, r.payload...)
}

func (a *alias) encode() []byte {
	b := make([]byte, 0, aliasSize)
	b = append(b, version, isAlias)
	b = binary.BigEndian.AppendUint64(b, uint64(a.useBy))
	return append(b, a.next[:]...)
}

// decodeRecord reads a record. What another version of this package wrote is
// none. The payload shares memory with b.
func decodeRecord(b []byte) (r record, ok bool) {
	if len(b) < recordHead || b[0] != version || b[1] != isRecord {
		return record{}, false
	}
	at := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[2+8*i:])) }
	n := int(binary.BigEndian.Uint16(b[recordHead-2:]))
	rest := b[recordHead:]
	if n > len(rest) {
		return record{}, false
	}
	return record{
		created: at(0), issued: at(1), seen: at(2), deadline: at(3), epoch: uint64(at(4)),
		user: string(rest[:n]), payload: rest[n:],
	}, true
}

func decodeAlias(b []byte) (a alias, ok bool) {
	if len(b) != aliasSize || b[0] != version || b[1] != isAlias {
		return alias{}, false
	}
	a.useBy = int64(binary.BigEndian.Uint64(b[2:]))
	copy(a.next[:], b[10:])
	return a, true
}

// leads reports whether a request that comes with the old id gets the session.
func (a *alias) leads(now time.Time) bool { return now.UnixNano() < a.useBy }

// Ids are 32 random bytes. In the cookie they are base64url, in the store they
// are only known by their hash.
const (
	idSize = 32
	idText = 43 // base64 of idSize bytes without padding
)

// newID returns a new id as it is in the cookie. Where the system has no
// randomness the program ends: crypto/rand sees to it.
func newID() string {
	var id [idSize]byte
	rand.Read(id[:])
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// hashID returns the hash of an id, or false if text is none. There is one
// spelling of each.
func hashID(text string) (hash [sha256.Size]byte, ok bool) {
	if len(text) != idText {
		return hash, false
	}
	var src [idText]byte
	var id [idSize + 1]byte
	copy(src[:], text)
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], src[:])
	if err != nil || n != idSize {
		return hash, false // a line break counts as nothing to the decoder
	}
	return sha256.Sum256(id[:idSize]), true
}

// key returns the key of a hash after prefix.
func key(prefix string, hash [sha256.Size]byte) string {
	var buf [192]byte
	return string(base64.RawURLEncoding.AppendEncode(append(buf[:0], prefix...), hash[:]))
}

// logID returns what a session is called in logs, given its key.
func logID(key string) string {
	mac := hmac.New(sha256.New, []byte(key[len(key)-idText:]))
	mac.Write([]byte("plainware/session log id"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}
