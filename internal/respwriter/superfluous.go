package respwriter

import (
	"context"
	"log"
	"net/http"
	"path"
	"runtime"
	"strings"
)

// ReportSuperfluous writes the server's complaint about a second WriteHeader to
// the server's ErrorLog, naming the handler that called it: the first caller
// outside net/http, this package, and the package of the wrapper that reports.
// The server, asked from inside a wrapper, would name the wrapper. Like the
// server it is silent on HTTP/2.
func ReportSuperfluous(r *http.Request) {
	if r.ProtoMajor != 1 {
		return
	}
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	self, _ := frames.Next()
	reporter, more := frames.Next()
	f := reporter
	for more && (inPackageOf(f, self) || inPackageOf(f, reporter) || strings.HasPrefix(f.Function, "net/http.")) {
		f, more = frames.Next()
	}
	Logf(r.Context(), "http: superfluous response.WriteHeader call from %s (%s:%d)", f.Function, path.Base(f.File), f.Line)
}

// inPackageOf reports whether both functions are of one package.
func inPackageOf(a, b runtime.Frame) bool { return packagePath(a.Function) == packagePath(b.Function) }

// packagePath is the import path in front of a function's name: up to the
// first dot after the last slash.
func packagePath(function string) string {
	slash := strings.LastIndexByte(function, '/') + 1
	dot := strings.IndexByte(function[slash:], '.')
	if dot < 0 {
		return function
	}
	return function[:slash+dot]
}

// Logf writes to the ErrorLog of the server that serves the request of ctx, or
// to the standard logger, as net/http itself does.
func Logf(ctx context.Context, format string, args ...any) {
	if srv, ok := ctx.Value(http.ServerContextKey).(*http.Server); ok && srv.ErrorLog != nil {
		srv.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}
