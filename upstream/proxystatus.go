package upstream

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"
	"syscall"
)

// proxyStatusName returns a token of RFC 9110 as an item of a structured field,
// whose tokens begin with a letter or an asterisk (RFC 9651 section 3.3.4), and
// which can be a string too (RFC 9209 section 2).
func proxyStatusName(name string) string {
	if c := name[0] | 0x20; c >= 'a' && c <= 'z' || name[0] == '*' {
		return name
	}
	return `"` + name + `"`
}

// proxyStatusError returns a Proxy-Status element (RFC 9209) for an error that
// this proxy has answered. It has the registered word for what happened, and
// nothing that tells one back end from another.
func proxyStatusError(name string, e *Error) string {
	return name + "; error=" + proxyErrorType(e)
}

// proxyStatusReceived returns the element for a response that a back end sent.
func proxyStatusReceived(name string, status int) string {
	return name + "; received-status=" + strconv.Itoa(status)
}

// proxyErrorType returns the proxy error type of RFC 9209 section 2.3 for e.
func proxyErrorType(e *Error) string {
	switch e.Kind {
	case KindNoBackend, KindGate, KindClosed:
		return "destination_unavailable"
	case KindQueueFull, KindQueueTimeout:
		return "connection_limit_reached"
	case KindDial:
		return dialErrorType(e)
	case KindTLS:
		if _, ok := errors.AsType[*tls.CertificateVerificationError](e.Err); ok {
			return "tls_certificate_error"
		}
		return "tls_protocol_error"
	case KindWrite, KindNoResponse:
		return "connection_terminated"
	case KindDeadline, KindHeaderTimeout:
		return "http_response_timeout"
	case KindBadResponse:
		if errors.Is(e.Err, errTooLong) {
			return "http_response_body_size"
		}
		return "http_protocol_error"
	case KindBodyAborted:
		return "http_response_incomplete"
	case KindUpgrade:
		return "http_upgrade_failed"
	case KindPolicy:
		if e.status == http.StatusLoopDetected {
			return "proxy_loop_detected"
		}
		return "http_request_denied"
	case KindClientGone, KindClientBody, KindTooLarge:
		return "http_request_error"
	}
	return "proxy_internal_error"
}

func dialErrorType(e *Error) string {
	if d, ok := errors.AsType[*net.DNSError](e.Err); ok {
		if d.IsTimeout {
			return "dns_timeout"
		}
		return "dns_error"
	}
	switch {
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return "connection_refused"
	case errors.Is(e.Err, syscall.ENETUNREACH), errors.Is(e.Err, syscall.EHOSTUNREACH):
		return "destination_ip_unroutable"
	case e.Timeout():
		return "connection_timeout"
	}
	return "destination_unavailable"
}
