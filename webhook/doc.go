// Package webhook verifies the webhooks of any provider over the bytes as they
// were received, lets each delivery through once, and hands the body on. It
// also signs webhooks that a program sends.
//
//	hooks, err := webhook.New(webhook.Config{
//		Scheme: webhook.GitHub(),
//		Keys:   []webhook.Key{webhook.Secret(os.Getenv("WEBHOOK_SECRET"))},
//		Store:  mem, Name: "github", // optional: each delivery once
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	mux.Handle("POST /hooks/github", hooks.Handler(myHandler))
//
// In a handler, r.Body is the verified body, from its start, and [FromContext]
// returns the [Delivery]: when it was signed, with which of the keys, and what
// identifies it. [Verifier.Verify] and [Verifier.VerifyBytes] are the same
// without a handler.
//
// # Schemes
//
// A [Scheme] is data. There are presets for some sixty providers; their
// documentation says where a signature covers less than one would think, and
// which were written from a provider's description without a published example
// to prove them. A provider that is not there takes a few lines:
//
//	webhook.Scheme{
//		Name: "acme", Algorithm: webhook.HMACSHA256, Encoding: webhook.Hex,
//		Header: "Acme-Signature", Format: webhook.Pairs(",", "t", "v1"),
//		TimeFormat: webhook.UnixSeconds, Signed: "{time}.{body}", Tolerance: 5 * time.Minute,
//	}
//
// For one that cannot be described so, Scheme.Verify is a function that gets
// the same strict parsing and constant-time comparison through [Message].
//
// # What is checked
//
// In this order: the method, Content-Encoding, Content-Length; exactly one line
// of the signature's field, in the scheme's one form; the time in it, within
// the window to both sides; then the body is read, up to [Config.MaxBody], and
// every key is compared with every signature in constant time. Signatures of
// other versions than the scheme's are ignored, and no preset falls back to a
// weaker one. Whatever fails is answered with the same 401;
// [Config.OnReject] learns what it was.
//
// Providers that sign the URL need [Config.URL]. It is never taken from the
// request, whose Host header is the sender's to choose.
//
// # Each delivery once
//
// With a [Config.Store], a delivery is claimed before the handler runs. While it
// runs, a repetition is answered with 409 and Retry-After. When the handler has
// succeeded, with a 2xx, a repetition is answered with 200 and is not handled.
// When it has failed, redirected or panicked, the claim is given back, so that the
// provider's next attempt is handled: answering it with 200 would lose the
// event. If the process dies, the claim ends with [Config.Lease].
//
// So a delivery is handled once if handlers finish within the lease and the
// store can then be told so, and at least once if not: when the store fails after
// the handler, a repetition is handled again as soon as the lease has ended, and
// [Config.Logger] has the failure. What identifies a delivery are the signed bytes, and no
// header that anyone could change: a redelivery by hand of the same bytes is a
// duplicate, too. Providers that sign each attempt anew make different
// deliveries of one event, for which there is [Config.Key].
//
// Of tests that providers make of an endpoint, those that are signed are answered
// after they were verified, and those by GET or HEAD where the preset says so; see
// [Config.PassChallenges]. For the latter the route must not be one for POST
// alone.
//
// # Where it belongs
//
// Around the one route of the provider, inside of request IDs, limits and logs.
// Nothing outside of it may read the body or decode it. The body is held in
// memory, and the handler starts when all of it is there; put a
// timeout outside, since this package has none, and let it be shorter than the
// lease. A rate limit belongs outside as well.
//
// # What it costs
//
// A request without a signature is found out without an allocation and without
// reading its body. Verifying costs the hash of the body, the body's bytes in
// memory, and two small allocations; Handler adds the copy of the request. The
// store is asked twice for a delivery that is handled. There are no goroutines;
// [CertFetcher], which is for providers with certificates, is the one thing
// that makes calls.
//
// # What it does not do
//
// It does not parse events, and it does not queue them: answer quickly and do the
// work elsewhere if it takes long. It sends no retries. Where a provider protects
// its webhooks by addresses only, a verifier has nothing to verify.
package webhook
