package webhook

import (
	"net/http"
	"time"
)

// hmacBody is the most common scheme: HMAC-SHA256 over the body.
func hmacBody(name, header string, f Format, e Encoding) Scheme {
	return Scheme{Name: name, Algorithm: HMACSHA256, Header: header, Format: f, Encoding: e, Signed: "{body}"}
}

// GitHub is github.com and GitHub Enterprise. The ID of a delivery is not
// signed, so it is not read; a redelivery by hand repeats the signed bytes, and
// a replay guard takes it for the duplicate that it is.
func GitHub() Scheme {
	s := hmacBody("github", "X-Hub-Signature-256", Prefixed("sha256="), Hex)
	s.Strip = []string{"X-Hub-Signature", "X-Github-Encoded-Secret"}
	return s
}

// GitHubSHA1 is the older signature of GitHub, for old servers that send no
// other.
func GitHubSHA1() Scheme {
	s := hmacBody("github-sha1", "X-Hub-Signature", Prefixed("sha1="), Hex)
	s.Algorithm = HMACSHA1Legacy
	s.Strip = []string{"X-Hub-Signature-256", "X-Github-Encoded-Secret"}
	return s
}

// GitLab is the signing token of GitLab 19 and later, a key for
// [SecretBase64].
func GitLab() Scheme {
	s := StandardWebhooks()
	s.Name, s.EventField = "gitlab", ""
	return s
}

// GitLabToken is the secret token of GitLab. It signs nothing: whoever has seen
// one delivery can make others.
//
// Implemented from the provider's description; no published example was at
// hand.
func GitLabToken() Scheme { return token("gitlab-token", "X-Gitlab-Token") }

func token(name, header string) Scheme {
	return Scheme{Name: name, Algorithm: Token, Header: header, Encoding: Text, Signed: "{body}"}
}

// Gitea is Gitea and Forgejo.
func Gitea() Scheme { return hmacBody("gitea", "X-Gitea-Signature", Format{}, Hex) }

// Gogs is Gogs.
func Gogs() Scheme { return hmacBody("gogs", "X-Gogs-Signature", Format{}, Hex) }

// Bitbucket is Bitbucket Cloud, Bitbucket Server and Jira.
func Bitbucket() Scheme { return hmacBody("bitbucket", "X-Hub-Signature", Prefixed("sha256="), Hex) }

// Stripe is Stripe. The key is the whole text of the secret, whsec_ included:
// [Secret]. Stripe signs each attempt anew; see [Config.Key].
func Stripe() Scheme {
	return Scheme{
		Name: "stripe", Algorithm: HMACSHA256, Header: "Stripe-Signature", Format: Pairs(",", "t", "v1"), Encoding: Hex,
		TimeFormat: UnixSeconds, Signed: "{time}.{body}", Tolerance: 5 * time.Minute, EventField: "id", whsec: whsecText,
	}
}

// Slack is the Events API, slash commands and interactive components of Slack,
// with the signing secret. Slack signs each attempt anew; see [Config.Key].
func Slack() Scheme {
	return Scheme{
		Name: "slack", Algorithm: HMACSHA256, Header: "X-Slack-Signature", Format: Prefixed("v0="), Encoding: Hex,
		TimeHeader: "X-Slack-Request-Timestamp", TimeFormat: UnixSeconds, Signed: "v0:{time}:{body}",
		Tolerance: 5 * time.Minute, EventField: "event_id", Challenge: slackChallenge,
	}
}

// Shopify is Shopify, with the client secret. After a rotation it signs with the
// old one for up to an hour. The topic is in a header field that is not signed,
// and an order has one body for several: see [Config.Name].
func Shopify() Scheme { return hmacBody("shopify", "X-Shopify-Hmac-Sha256", Format{}, Base64) }

// StandardWebhooks is https://www.standardwebhooks.com with symmetric keys, as
// Clerk, Resend, OpenAI and others send. The secret is for [SecretBase64]. An
// attempt that is made again has the ID of the first and another time; see
// [Config.Key].
func StandardWebhooks() Scheme {
	return Scheme{
		Name: "standard-webhooks", Algorithm: HMACSHA256, Header: "Webhook-Signature", Format: List(" ", "v1,"), Encoding: Base64,
		IDHeader: "Webhook-Id", TimeHeader: "Webhook-Timestamp", TimeFormat: UnixSeconds,
		Signed: "{id}.{time}.{body}", Tolerance: 5 * time.Minute, MinSecret: 24, whsec: whsecBase64,
	}
}

// StandardWebhooksEd25519 is the same with public keys (whpk_…, [PublicKeyText]):
// signatures of version v1a.
//
// Implemented from the specification; no published example was at hand.
func StandardWebhooksEd25519() Scheme {
	s := StandardWebhooks()
	s.Name, s.Algorithm, s.Format = "standard-webhooks-v1a", Ed25519, List(" ", "v1a,")
	return s
}

// Svix is Standard Webhooks under the names that Svix gave the fields before.
func Svix() Scheme {
	s := StandardWebhooks()
	s.Name, s.Header, s.IDHeader, s.TimeHeader = "svix", "Svix-Signature", "Svix-Id", "Svix-Timestamp"
	return s
}

// Square is Square. It signs the URL, and the body right after it. So that the
// end of the query cannot be moved to the beginning of the body, a body is
// refused that does not look like a JSON object or array, which all of Square's
// are; give Square no URL with a bare { or [ in its query.
func Square() Scheme {
	s := hmacBody("square", "X-Square-Hmacsha256-Signature", Format{}, Base64)
	s.Signed, s.EventField, s.bodyJSON = "{url}{body}", "event_id", true
	return s
}

// HubSpot is version 3 of HubSpot's signature, with the client secret. It signs
// the URL, and the body right after it: what is said of [Square] is true of it.
// A GET or DELETE, which HubSpot sends without a body, is refused with one.
func HubSpot() Scheme {
	return Scheme{
		Name: "hubspot", Algorithm: HMACSHA256, Header: "X-HubSpot-Signature-v3", Encoding: Base64,
		TimeHeader: "X-HubSpot-Request-Timestamp", TimeFormat: UnixMillis,
		Signed: "{method}{url-hubspot}{body}{time}", Tolerance: 5 * time.Minute,
		Methods: []string{"GET", "POST", "PUT", "PATCH", "DELETE"},
		Strip:   []string{"X-HubSpot-Signature", "X-HubSpot-Signature-Version"}, bodyJSON: true,
	}
}

// HubSpotV2 is the older signature of HubSpot: without a time, and a plain
// hash of the secret and what is signed. Whoever has seen one delivery can make
// others without the secret, with a body that begins with that of the first
// and goes on with some bytes of padding and any text (length extension). Each is
// another delivery for a Store, and a parser that stops after the first JSON
// value takes it for the true one: have all of the body parsed, as
// json.Unmarshal does, or better, use [HubSpot]. It signs the URL, as [HubSpot].
func HubSpotV2() Scheme {
	return Scheme{
		Name: "hubspot-v2", Algorithm: SHA256Legacy, Header: "X-HubSpot-Signature", Encoding: Hex,
		Signed: "{method}{url}{body}", Methods: []string{"GET", "POST", "PUT", "PATCH", "DELETE"}, bodyJSON: true,
	}
}

// HubSpotV1 is the oldest signature of HubSpot, over the body alone. It is as
// weak as [HubSpotV2].
func HubSpotV1() Scheme {
	return Scheme{Name: "hubspot-v1", Algorithm: SHA256Legacy, Header: "X-HubSpot-Signature", Encoding: Hex, Signed: "{body}"}
}

// SendGrid is the event webhook of Twilio SendGrid, with the verification key
// ([PublicKeyText]). The window of ten minutes is the kit's.
func SendGrid() Scheme {
	return Scheme{
		Name: "sendgrid", Algorithm: ECDSAP256SHA256, Header: "X-Twilio-Email-Event-Webhook-Signature", Encoding: Base64,
		TimeHeader: "X-Twilio-Email-Event-Webhook-Timestamp", TimeFormat: UnixSeconds,
		Signed: "{time}{body}", Tolerance: 10 * time.Minute,
	}
}

// Discord is interactions and webhook events of Discord, with the public key of
// the application ([PublicKeyText]). The PING of interactions is answered; that
// of webhook events, type 0, is the handler's, and Discord wants a 204 for it. The
// window of five minutes is the kit's.
//
// Implemented from the provider's description; no published example was at
// hand.
func Discord() Scheme {
	return Scheme{
		Name: "discord", Algorithm: Ed25519, Header: "X-Signature-Ed25519", Encoding: Hex,
		TimeHeader: "X-Signature-Timestamp", TimeFormat: UnixSeconds,
		Signed: "{time}{body}", Tolerance: 5 * time.Minute, EventField: "id", Challenge: discordChallenge,
	}
}

// Paddle is Paddle Billing. The window of five minutes is the kit's.
func Paddle() Scheme {
	return Scheme{
		Name: "paddle", Algorithm: HMACSHA256, Header: "Paddle-Signature", Format: Pairs(";", "ts", "h1"), Encoding: Hex,
		TimeFormat: UnixSeconds, Signed: "{time}:{body}", Tolerance: 5 * time.Minute, EventField: "event_id",
	}
}

// PagerDuty is PagerDuty's webhooks of version 3.
func PagerDuty() Scheme {
	s := hmacBody("pagerduty", "X-PagerDuty-Signature", List(",", "v1="), Hex)
	s.EventField = "event.id"
	return s
}

// Zoom is Zoom, with the secret token. The window of five minutes is the kit's.
//
// Implemented from the provider's description; no published example was at
// hand.
func Zoom() Scheme {
	return Scheme{
		Name: "zoom", Algorithm: HMACSHA256, Header: "X-Zm-Signature", Format: Prefixed("v0="), Encoding: Hex,
		TimeHeader: "X-Zm-Request-Timestamp", TimeFormat: UnixSeconds,
		Signed: "v0:{time}:{body}", Tolerance: 5 * time.Minute, Challenge: zoomChallenge,
	}
}

// Linear is Linear. The time is in the body.
//
// Implemented from the provider's description; no published example was at
// hand.
func Linear() Scheme {
	s := hmacBody("linear", "Linear-Signature", Format{}, Hex)
	s.TimeField, s.TimeFormat, s.Tolerance = "webhookTimestamp", UnixMillis, time.Minute
	return s
}

// Twitch is EventSub of Twitch. The type of the message, which is in a header
// field, is not signed.
func Twitch() Scheme {
	return Scheme{
		Name: "twitch", Algorithm: HMACSHA256, Header: "Twitch-Eventsub-Message-Signature", Format: Prefixed("sha256="), Encoding: Hex,
		IDHeader: "Twitch-Eventsub-Message-Id", TimeHeader: "Twitch-Eventsub-Message-Timestamp", TimeFormat: RFC3339,
		Signed: "{id}{time}{body}", Tolerance: 10 * time.Minute, Challenge: twitchChallenge,
	}
}

// Meta is Facebook, Instagram and WhatsApp, with the app secret. With
// verifyToken, the token configured there, the endpoint answers Meta's GET
// test; with "" it refuses it.
//
// Implemented from the provider's description; no published example was at
// hand.
func Meta(verifyToken string) Scheme {
	s := hmacBody("meta", "X-Hub-Signature-256", Prefixed("sha256="), Hex)
	s.Probe = metaProbe(verifyToken)
	s.Strip = []string{"X-Hub-Signature"}
	return s
}

// LINE is the Messaging API of LINE, with the channel secret.
//
// Implemented from the provider's description; no published example was at
// hand. So are [Xero] and [WooCommerce].
func LINE() Scheme { return hmacBody("line", "X-Line-Signature", Format{}, Base64) }

// Xero is Xero, with the webhooks key. It takes an answer with a body or a cookie
// for a failure, also that to the forged deliveries with which it tests the
// endpoint (intent to receive). So refusals have no body here, and an
// [Config.ErrorHandler] and the handler should not write one either.
func Xero() Scheme {
	s := hmacBody("xero", "X-Xero-Signature", Format{}, Base64)
	s.bodiless = true
	return s
}

// WooCommerce is WooCommerce. The topic is not signed, as with [Shopify]. Nor is
// the ping that it sends when a webhook is saved: that is refused, which its
// admin page shows as an error, and deliveries come all the same.
func WooCommerce() Scheme {
	return hmacBody("woocommerce", "X-WC-Webhook-Signature", Format{}, Base64)
}

// Dropbox is Dropbox, with the app secret. The endpoint answers its GET test.
//
// Implemented from the provider's description; no published example was at
// hand.
func Dropbox() Scheme {
	s := hmacBody("dropbox", "X-Dropbox-Signature", Format{}, Hex)
	s.Probe = dropboxProbe
	return s
}

// Sentry is Sentry's integration platform, with the client secret.
func Sentry() Scheme { return hmacBody("sentry", "Sentry-Hook-Signature", Format{}, Hex) }

// LemonSqueezy is Lemon Squeezy.
//
// Implemented from the provider's description; no published example was at
// hand.
func LemonSqueezy() Scheme { return hmacBody("lemonsqueezy", "X-Signature", Format{}, Hex) }

// Razorpay is Razorpay.
func Razorpay() Scheme { return hmacBody("razorpay", "X-Razorpay-Signature", Format{}, Hex) }

// Checkout is Checkout.com.
func Checkout() Scheme {
	s := hmacBody("checkout", "Cko-Signature", Format{}, Hex)
	s.EventField = "id"
	return s
}

// GoCardless is GoCardless. One delivery has several events.
func GoCardless() Scheme { return hmacBody("gocardless", "Webhook-Signature", Format{}, Hex) }

// Vercel is Vercel. It signs with HMAC-SHA1.
func Vercel() Scheme {
	s := hmacBody("vercel", "X-Vercel-Signature", Format{}, Hex)
	s.Algorithm, s.EventField = HMACSHA1Legacy, "id"
	return s
}

// Intercom is Intercom, with the client secret. It signs with HMAC-SHA1. The
// endpoint answers its HEAD test, by which Intercom sees that there is one.
func Intercom() Scheme {
	s := hmacBody("intercom", "X-Hub-Signature", Prefixed("sha1="), Hex)
	s.Algorithm, s.EventField = HMACSHA1Legacy, "id"
	s.Probe, s.probedBy = here, http.MethodHead
	return s
}

// Mollie is Mollie's next-generation webhooks. For a day after a rotation it sends
// a line of the field with each of the two signatures. Its library takes them
// without the sha256= as well, and so does this.
func Mollie() Scheme {
	s := hmacBody("mollie", "X-Mollie-Signature", List(",", "sha256="), Hex)
	s.EventField, s.lines, s.Format.optional = "id", true, true
	return s
}

// Notion is Notion, with the verification token. Notion sends that token to the
// endpoint, before anyone has it: take it from the first POST without this
// package, and only then configure it here.
//
// Implemented from the provider's description; no published example was at
// hand.
func Notion() Scheme {
	s := hmacBody("notion", "X-Notion-Signature", Prefixed("sha256="), Hex)
	s.EventField = "id"
	return s
}

// Typeform is Typeform.
func Typeform() Scheme {
	s := hmacBody("typeform", "Typeform-Signature", Prefixed("sha256="), Base64)
	s.EventField = "event_id"
	return s
}

// X is the Account Activity API of X (Twitter), with the consumer secret.
//
// The endpoint answers its GET test (CRC) with an HMAC of a text that anyone can
// choose. The text must be 1 to 128 characters of base64, which no event is, so
// that the answer is of no use for forging one; put a rate limit outside all
// the same. It is made with the first of [Config.Keys]: in a rotation, that has to
// be the secret which X has at that time.
//
// Implemented from the provider's description; no published example was at
// hand.
func X() Scheme {
	s := hmacBody("x", "X-Twitter-Webhooks-Signature", Prefixed("sha256="), Base64)
	s.Probe = xProbe
	return s
}

// Paystack is Paystack, with the secret key.
//
// Implemented from the provider's description; no published example was at
// hand.
func Paystack() Scheme {
	s := hmacBody("paystack", "X-Paystack-Signature", Format{}, Hex)
	s.Algorithm = HMACSHA512
	return s
}

// signedTime is HMAC-SHA256 over "time.body" with the time in the field of the
// signature.
func signedTime(name, header string, f Format, t TimeFormat, tolerance time.Duration) Scheme {
	return Scheme{
		Name: name, Algorithm: HMACSHA256, Header: header, Format: f, Encoding: Hex,
		TimeFormat: t, Signed: "{time}.{body}", Tolerance: tolerance,
	}
}

// Mux is Mux.
func Mux() Scheme {
	s := signedTime("mux", "Mux-Signature", Pairs(",", "t", "v1"), UnixSeconds, 5*time.Minute)
	s.EventField = "id"
	return s
}

// Calendly is Calendly.
func Calendly() Scheme {
	return signedTime("calendly", "Calendly-Webhook-Signature", Pairs(",", "t", "v1"), UnixSeconds, 3*time.Minute)
}

// WorkOS is WorkOS.
//
// Implemented from the provider's description; no published example was at
// hand.
func WorkOS() Scheme {
	s := signedTime("workos", "WorkOS-Signature", Pairs(",", "t", "v1"), UnixMillis, 3*time.Minute)
	s.EventField = "id"
	return s
}

// CloudflareStream is Cloudflare Stream. The window of five minutes is the
// kit's.
//
// Implemented from the provider's description; no published example was at
// hand.
func CloudflareStream() Scheme {
	return signedTime("cloudflare-stream", "Webhook-Signature", Pairs(",", "time", "sig1"), UnixSeconds, 5*time.Minute)
}

// Sanity is Sanity's GROQ-powered webhooks. Their documentation asks for no
// window, since retries keep the time of the event: set [Config.Tolerance] if
// you want one.
func Sanity() Scheme {
	s := signedTime("sanity", "Sanity-Webhook-Signature", Pairs(",", "t", "v1"), UnixMillis, 0)
	s.Encoding = Base64URL
	return s
}

// Recurly is Recurly. The window of five minutes is the kit's.
func Recurly() Scheme {
	return signedTime("recurly", "Recurly-Signature", TimeList(), UnixMillis, 5*time.Minute)
}

// Webflow is Webflow, with the client secret of the OAuth application that made
// the webhook, or the secret that came with it when it was made by the API. One
// made in the dashboard may not be signed.
//
// Implemented from the provider's description; no published example was at
// hand.
func Webflow() Scheme {
	return Scheme{
		Name: "webflow", Algorithm: HMACSHA256, Header: "X-Webflow-Signature", Encoding: Hex,
		TimeHeader: "X-Webflow-Timestamp", TimeFormat: UnixMillis, Signed: "{time}:{body}", Tolerance: 5 * time.Minute,
	}
}

// Zendesk is Zendesk. Its secret looks like base64 and is used as text:
// [Secret]. The window of five minutes is the kit's.
func Zendesk() Scheme {
	return Scheme{
		Name: "zendesk", Algorithm: HMACSHA256, Header: "X-Zendesk-Webhook-Signature", Encoding: Base64,
		TimeHeader: "X-Zendesk-Webhook-Signature-Timestamp", TimeFormat: RFC3339,
		Signed: "{time}{body}", Tolerance: 5 * time.Minute, EventField: "id",
	}
}

// Box is Box, with the primary and the secondary signature key.
func Box() Scheme {
	return Scheme{
		Name: "box", Algorithm: HMACSHA256, Header: "Box-Signature-Primary", AlsoHeader: "Box-Signature-Secondary", Encoding: Base64,
		TimeHeader: "Box-Delivery-Timestamp", TimeFormat: RFC3339, Signed: "{body}{time}", Tolerance: 10 * time.Minute,
		Require:    map[string]string{"Box-Signature-Version": "1", "Box-Signature-Algorithm": "HmacSHA256"},
		EventField: "id",
	}
}

// Cashfree is Cashfree Payments, with the client secret. The window of five
// minutes is the kit's.
func Cashfree() Scheme {
	return Scheme{
		Name: "cashfree", Algorithm: HMACSHA256, Header: "X-Webhook-Signature", Encoding: Base64,
		TimeHeader: "X-Webhook-Timestamp", TimeFormat: UnixMillis, Signed: "{time}{body}", Tolerance: 5 * time.Minute,
	}
}

// AdyenBanking is the balance platform, banking and onboarding webhooks of
// Adyen, which have the signature in the header. The key is for [SecretHex].
// For payments see [Adyen].
func AdyenBanking() Scheme { return hmacBody("adyen-banking", "HmacSignature", Format{}, Base64) }

// Wise is Wise, with their public key ([PublicKeyText]).
func Wise() Scheme {
	s := hmacBody("wise", "X-Signature-SHA256", Format{}, Base64)
	s.Algorithm = RSASHA256
	return s
}

// Telegram is the Bot API of Telegram, with the secret_token of setWebhook. It
// signs nothing: whoever has seen one delivery can make others.
//
// Implemented from the provider's description; no published example was at
// hand.
func Telegram() Scheme { return token("telegram", "X-Telegram-Bot-Api-Secret-Token") }

// Postmark is Postmark, with the "user:password" of the webhook's URL as the
// secret. It signs nothing: whoever has seen one delivery can make others.
//
// Implemented from the provider's description; no published example was at
// hand.
func Postmark() Scheme {
	s := token("postmark", "Authorization")
	s.Format, s.Encoding = Prefixed("Basic "), Base64
	return s
}

// PhonePe is PhonePe, with "user:password" as the secret. It signs nothing:
// whoever has seen one delivery can make others.
func PhonePe() Scheme {
	s := token("phonepe", "Authorization")
	s.Algorithm, s.Encoding = TokenSHA256, Hex
	return s
}
