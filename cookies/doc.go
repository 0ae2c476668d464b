// Package cookies keeps a value in the browser, sealed so that nobody else can
// read or change it, or signed so that nobody else can change it.
//
//	cart, err := cookies.NewSealed(cookies.Config[Cart]{Name: cookies.HostOnly("cart"), Keys: keys})
//	if err != nil {
//		log.Fatal(err)
//	}
//	v, info, err := cart.Get(r) // in a handler
//	err = cart.Set(w, r, v)
//	cart.Delete(w)
//
// [Cookie.Handler] does the reading for all handlers behind it, and
// [Cookie.From] returns what it found. Keys come from [GenerateKey], and
// [ParseKeys] reads a ring of them from one text.
//
// # What is kept from whom
//
// A value belongs to the full name of its cookie, and to what [Config.Bind]
// returns: as another cookie, or for another tenant, it is invalid. The time of
// issue and the expiry stand inside the protection and are checked, whatever
// the browser does. A value has one spelling. What is wrong with one that is
// not valid, no error tells. Of several cookies of one name, which a
// subdomain can plant, exactly one must be valid.
//
// Two things it cannot do. A value is good until it expires: deleting the
// cookie asks the browser to forget it, and who has a copy still has it. And an
// old value can replace a newer one of the same cookie. Where logging out must
// hold, keep the state on the server: package cookies/session.
//
// # Rotation of keys
//
// The first of [Config.Keys] writes, all of them read, and those of
// [Config.Incoming] read as well. So a new key takes three deployments, none of
// which has to be instant: into Incoming; to the front of Keys; and, when
// [Config.OnRead] has not seen the old one for the life of a value, the old one
// out. Each value names its key, so that reading costs one computation whatever
// the number of keys, and none where the key is unknown. Handler and
// [Cookie.Refresh] write what an old key made again under the first one.
//
// # Where it belongs
//
// Inside whatever may refuse a request before its cookies matter, such as a
// rate limit, and outside the handlers that read the value. The
// ResponseWriter is passed through as it is, except for a request whose value is
// to be refreshed: that one gets a wrapper, with the abilities of the writer
// below, that adds the header at the last moment.
//
// A response that depends on a cookie must not be kept by a shared cache for
// other visitors. That is the handler's to say (Cache-Control: private, or Vary);
// neither Get nor Set says it.
//
// # What browsers enforce in silence
//
// The constructors refuse what a browser would drop: names and attributes that
// are none, a prefix whose rules the attributes break, SameSite=None or
// Partitioned without Secure, more than 400 days. Set refuses more than
// 4096 bytes of name and value, which leaves 3003 bytes of payload under a
// name of 16. The safe attributes are the default: Secure, HttpOnly, SameSite=Lax,
// Path=/ and no Domain. Most browsers take http://localhost for secure.
//
// # The format
//
//	e1.<key id>.<base64url( nonce[24] ciphertext tag[16] )>      sealed
//	s1.<key id>.<base64url( plaintext code[32] )>                signed
//
//	plaintext = flags[1] issued[5] expires[5] payload
//	data      = "cookies/" version 0x00 key id[3] length[2] name length[2] binding
//
// Numbers are big-endian, times are Unix seconds, flags are 0. The version
// stands for everything: e1 is XAES-256-GCM (C2SP) over plaintext, with data
// authenticated; s1 is HMAC-SHA256 over data and plaintext. The keys are
// HKDF-SHA256 of one of Keys, without salt, for the info "cookies/e1" or
// "cookies/s1", and the id the first 3 bytes for the info "cookies/kid", in the
// value as 4 characters of base64url. Of several [Config.Chunks] the first has
// their number and a tilde in front, and the names of the others end in ~1, ~2
// and ~3.
//
// Nothing is compressed: the length of a value would tell what is in it.
//
// # What it costs
//
// About 0.6 µs and three allocations (1.4 KB) to read a sealed value of 128
// bytes, as much to write one, and half of the time and one allocation for a
// signed one; package cookies/xchacha has a suite in between. The random
// nonces of e1 are safe for 2^80 values per key. It works under
// GODEBUG=fips140=only. No goroutines and no package-level state but pools of
// memory.
package cookies
