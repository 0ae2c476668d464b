package webhook

import (
	"net/http"
	"time"
)

// SetClock makes v judge by another clock.
func (v *Verifier) SetClock(now func() time.Time) { v.now = now }

// Parse reads what the header of a delivery says, as a verifier of s does
// before it reads the body.
func Parse(s Scheme, h http.Header) (sigs [][]byte, id, at string, err error) {
	c, err := s.compile()
	if err != nil {
		return nil, "", "", err
	}
	x := &scratch{}
	var v values
	err = c.parse(h, x, &v)
	return x.sigs, v.id, v.time, err
}

// ParseTime, ParseDictionary and CertAddress are the parsers of outside text.
func ParseTime(text string, f TimeFormat) (time.Time, error) { return parseTime(text, f) }

func ParseDictionary(s string) (keys []string, ok bool) {
	members, ok := parseDictionary(s)
	for _, m := range members {
		keys = append(keys, m.key)
	}
	return keys, ok
}

func SNSAddress(s string) bool    { return snsAddress(s) }
func PayPalAddress(s string) bool { return payPalAddress(s) }
func HubSpotURL(s string) string  { return hubSpotURL(s) }
func TwilioURLs(s string) [2]string {
	return twilioURLs(s)
}

func Fold(s string) string { return fold(s) }
