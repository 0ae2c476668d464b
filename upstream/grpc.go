package upstream

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.com/plainware/internal/problem"
)

// isGRPC reports whether a Content-Type is that of gRPC: application/grpc, with
// or without +proto and parameters, and not application/grpc-web.
func isGRPC(contentType []string) bool {
	const media = "application/grpc"
	if len(contentType) == 0 || len(contentType[0]) < len(media) || !strings.EqualFold(contentType[0][:len(media)], media) {
		return false
	}
	rest := contentType[0][len(media):]
	return rest == "" || rest[0] == '+' || rest[0] == ';' || rest[0] == ' '
}

// grpcTimeout reads grpc-timeout: at most eight digits and a unit.
func grpcTimeout(values []string) (time.Duration, bool) {
	if len(values) != 1 {
		return 0, false
	}
	v := values[0]
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	var n int64
	for _, c := range []byte(v[:len(v)-1]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	const longest = 1<<63 - 1
	if n > int64(longest/unit) {
		return longest, true
	}
	return time.Duration(n) * unit, true
}

// formatGRPCTimeout is the other direction, rounded up so that what is left of
// a deadline is never none.
func formatGRPCTimeout(d time.Duration) string {
	if d <= 0 {
		return "1n"
	}
	for _, u := range [...]struct {
		unit time.Duration
		name string
	}{{time.Nanosecond, "n"}, {time.Microsecond, "u"}, {time.Millisecond, "m"}, {time.Second, "S"}, {time.Minute, "M"}} {
		if n := (int64(d) + int64(u.unit) - 1) / int64(u.unit); n < 1e8 && n > 0 {
			return strconv.FormatInt(n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Hour)+1, 10) + "H"
}

// The status codes of gRPC that a proxy has a use for.
const (
	grpcCancelled         = 1
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// grpcStatus returns the status code for an error: by its kind if it has one,
// otherwise by its HTTP status as clients map it.
func grpcStatus(err problem.Error) int {
	if e, ok := err.(*Error); ok {
		switch e.Kind {
		case KindClientGone:
			return grpcCancelled
		case KindDeadline, KindHeaderTimeout:
			return grpcDeadlineExceeded
		case KindTooLarge:
			return grpcResourceExhausted
		case KindBadResponse:
			return grpcInternal
		case KindDial, KindTLS, KindWrite, KindNoResponse, KindQueueTimeout:
			return grpcUnavailable
		}
	}
	switch err.HTTPStatus() {
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcPermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return grpcUnimplemented
	case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge:
		return grpcInternal
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable:
		return grpcUnavailable
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return grpcDeadlineExceeded
	}
	return grpcUnknown
}

// statusInHead reports whether res is a response of gRPC without trailers, whose
// one header block has the status and ends the stream.
func statusInHead(res *http.Response) bool {
	return len(res.Header["Grpc-Status"]) > 0 && isGRPC(res.Header["Content-Type"])
}

// writeGRPCError answers with a response of trailers only, which is a header
// block with status 200.
func writeGRPCError(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[problem.Error](err)
	if !ok {
		e = &Error{}
	}
	message := http.StatusText(e.HTTPStatus())
	if d, ok := e.(interface{ Detail() string }); ok {
		message = d.Detail()
	}
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.Itoa(grpcStatus(e)))
	h.Set("Grpc-Message", percentEncode(message))
	w.WriteHeader(http.StatusOK)
}

// percentEncode encodes a grpc-message: printable ASCII but "%" stays.
func percentEncode(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
