// Gateway is an edge in one small program: it stands between clients and HTTP
// back ends and gives every request an ID, a line in the log and limits on its
// time, and every client limits on its rate. It is meant to be copied and changed.
//
//	go run ./gateway                                   two demo back ends, on 127.0.0.1:8080
//	go run ./gateway -target http://127.0.0.1:9000     in front of a server of yours
//	go run ./gateway -target http://10.0.0.7:9000 -target http://10.0.0.8:9000
//	go run ./gateway -target … -target … -canary 5     the last one gets 5 % of the clients
//	go run ./gateway -store redis://127.0.0.1          sharing what it keeps with other gateways
//
// It speaks HTTP/1.1 and unencrypted HTTP/2, and passes on WebSockets over both.
// SIGINT or SIGTERM stops it: event streams end at once, WebSockets are closed,
// everything else has ten seconds to finish. A second signal kills it. The exit
// status is 0, or 1 after one line that says what was wrong.
//
// Where to look: this file has the flags and the server's life, gateway.go the
// chain of handlers and why it has that order, proxy.go the way to the back
// ends, sockets.go that of WebSockets, backends.go how they are chosen,
// breakers.go what keeps from calling those that are down, local.go what the
// operator can see, store.go where handlers keep what outlives a request,
// accesslog.go the log, demo.go the demo back ends, posts.go a list of theirs in
// pages, login.go the demo's login page, guard.go its decision service, hooks.go
// its webhooks, chat.go its chat.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"example.com/plainware/reqid"
	"example.com/plainware/upstream"
	"example.com/plainware/wsproxy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// From the first signal on the next one has its usual effect again, so
	// that nobody has to wait for a shutdown that hangs.
	context.AfterFunc(ctx, stop)
	// Otherwise go-redis writes lines of its own to standard error. What they
	// say is in the errors of the store too.
	redis.SetLogger(&logging.VoidLogger{})
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program. It returns the exit status and leaves nothing behind, so
// that a test can call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opt, err := parseFlags(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = serve(ctx, opt, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "gateway: %v\n", err)
		return 1
	}
	return 0
}

// options are what the flags say.
type options struct {
	listen  string
	targets []*url.URL // empty: the demo back ends
	canary  *int       // share of the last of them, of upstream.SplitScale; nil: it is like the others
	health  string     // path to ask of each; empty: whether they take connections
	timeout time.Duration
	store   storeSpec
	json    bool
	grace   time.Duration // no flag; see defaultGrace
}

// parseFlags reads args. Its errors are one line each and name the flag and
// the value. For -h it writes the usage to help and returns [flag.ErrHelp].
func parseFlags(args []string, help io.Writer) (options, error) {
	opt := options{grace: defaultGrace}
	var targets []string
	var share, stored, format string
	fs := flag.NewFlagSet("gateway", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // otherwise every error is followed by the whole usage
	fs.StringVar(&opt.listen, "listen", "127.0.0.1:8080", "`host:port` to listen on; port 0 takes a free one")
	fs.Func("target", "`URL` of a back end, http or https; repeat it to share the load\n(without it two demo back ends are started)", func(s string) error {
		targets = append(targets, s)
		return nil
	})
	fs.StringVar(&share, "canary", "", "`percent` of the clients that go to the last of the targets and not to the others,\n0 to 100 with up to two decimals; a client stays where it is (the demo starts one\nmore back end for it)")
	fs.StringVar(&opt.health, "health", "", "`path` that says with a status of 200 to 399 that a back end is well; without it\na back end is well if it takes connections")
	fs.DurationVar(&opt.timeout, "timeout", 0, "most `time` for a whole request, its answer included, e.g. 30s; the demo's routes\nhave limits of their own, and WebSockets go on; 0 is no limit, which event streams\nand long downloads need")
	fs.StringVar(&stored, "store", defaultStore, "`where` to keep what outlives a request: memory, sqlite:PATH, redis://HOST,\nrediss://HOST, postgres://HOST or postgresql://HOST; sqlite alone is the file\nplainware/gateway.db in your cache directory")
	fs.StringVar(&format, "log", "text", "`format` of the log on standard error: text or json")

	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(help, "Usage: gateway [-listen host:port] [-target URL]... [-canary percent] [-health path] [-timeout time] [-store where] [-log text|json]")
			fs.SetOutput(help)
			fs.PrintDefaults()
			return opt, err
		}
		return opt, fmt.Errorf("%w (try -h)", err)
	}
	if fs.NArg() > 0 {
		return opt, fmt.Errorf("unexpected argument %q (a back end is given with -target; try -h)", fs.Arg(0))
	}
	if _, port, err := net.SplitHostPort(opt.listen); err != nil || !validPort(port, 0) {
		return opt, fmt.Errorf("-listen: want host:port (got %q)", opt.listen)
	}
	if opt.timeout < 0 {
		return opt, fmt.Errorf("-timeout: must not be negative (got %v)", opt.timeout)
	}
	switch format {
	case "text":
	case "json":
		opt.json = true
	default:
		return opt, fmt.Errorf("-log: want text or json (got %q)", format)
	}
	for _, s := range targets {
		u, err := parseTarget(s)
		if err != nil {
			return opt, err
		}
		if slices.ContainsFunc(opt.targets, func(other *url.URL) bool { return *other == *u }) {
			return opt, fmt.Errorf("-target: is given twice (got %q)", s)
		}
		opt.targets = append(opt.targets, u)
	}
	if opt.health != "" {
		if u, err := url.ParseRequestURI(opt.health); err != nil || u.Host != "" || opt.health[0] != '/' {
			return opt, fmt.Errorf("-health: want a path such as /health (got %q)", opt.health)
		}
		if len(opt.targets) == 0 {
			return opt, fmt.Errorf("-health: is for the back ends of -target, and there is none (got %q)", opt.health)
		}
	}
	if share != "" {
		percent, err := strconv.ParseFloat(share, 64)
		hundredths := percent * upstream.SplitScale / 100
		if err != nil || !(hundredths >= 0 && hundredths <= upstream.SplitScale) {
			return opt, fmt.Errorf("-canary: want a percentage from 0 to 100 (got %q)", share)
		}
		if len(opt.targets) == 1 {
			return opt, fmt.Errorf("-canary: needs two targets or more, of which it is the last (got %q)", share)
		}
		opt.canary = new(int(math.Round(hundredths)))
	}
	var err error
	opt.store, err = parseStore(stored)
	return opt, err
}

// parseTarget accepts what the proxy can keep its word about: http or https, a
// host, perhaps a port and a path that the request's path is appended to.
func parseTarget(s string) (*url.URL, error) {
	bad := func(shown, problem string) (*url.URL, error) {
		return nil, fmt.Errorf("-target: %s (got %q)", problem, shown)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https":
		return bad(s, "want a URL such as http://127.0.0.1:9000")
	case u.User != nil:
		// A password would end up in logs; a header set by the proxy would not.
		return bad(u.Redacted(), "user and password are not supported")
	case u.Hostname() == "":
		return bad(s, "the host is missing")
	case u.Port() != "" && !validPort(u.Port(), 1):
		return bad(s, "the port must be from 1 to 65535")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return bad(s, "a query or fragment is not supported")
	}
	return u, nil
}

func validPort(s string, lowest uint64) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n >= lowest
}

// defaultGrace is how long requests in flight have to finish after a signal.
// Whatever sends the signal must wait longer than that before it kills.
const defaultGrace = 10 * time.Second

// serve listens and serves until ctx ends, then shuts down in order: no new
// connections, event streams and WebSockets end, other requests finish or are
// cut after opt.grace, other tunnels are cut, then the back ends go, and the
// store, which handlers may use to their end, goes last.
func serve(ctx context.Context, opt options, stdout, stderr io.Writer) error {
	logger, err := newLogger(opt.json, stderr)
	if err != nil {
		return err
	}
	// Listening comes first: when the port is taken, that is all there is to say.
	ln, err := listen(opt.listen)
	if err != nil {
		return err
	}
	defer ln.Close()

	opening, opened := context.WithTimeout(ctx, openWithin)
	kept, closeStore, err := openStore(opening, opt.store)
	opened()
	if err != nil {
		if ctx.Err() != nil {
			return nil // the signal came first
		}
		return err
	}
	defer func() {
		if err := closeStore(); err != nil {
			logger.Warn("the store was not closed properly", "error", err)
		}
	}()

	// requests is the context of every request. It outlives ctx, because a
	// signal must not cut what is in flight; at the end it releases what
	// Shutdown does not know about: connections that were upgraded.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	streams, endStreams := context.WithCancel(requests)
	defer endStreams()

	cfg := config{
		targets: opt.targets,
		calls:   callDefaults(),
		breaker: breakerDefaults(),
		limits:  edgeLimits(opt.timeout),
		store:   kept,
		streams: streams,
		logger:  logger,
	}
	if opt.health != "" {
		cfg.calls.Check.Kind, cfg.calls.Check.Path = upstream.CheckHTTP, opt.health
	}
	if len(opt.targets) == 0 {
		names := []string{"one", "two"}
		if opt.canary != nil {
			names = append(names, "canary")
		}
		demos, err := startDemos(names...)
		if err != nil {
			return err
		}
		defer demos.Close()
		cfg.targets, cfg.routes, cfg.demos = demos.urls, demoRoutes(), demos
		cfg.calls.Check.Kind, cfg.calls.Check.Path = upstream.CheckHTTP, "/health"
		sessions, err := newSessions(kept)
		if err != nil {
			return err
		}
		cfg.login = newLogin(sessions)
		if cfg.hooks, err = newHooks(kept); err != nil {
			logger.Warn("no route for webhooks", "error", err)
		}
		service, err := demos.decide(decisions(sessions))
		if err != nil {
			return err
		}
		if cfg.guard, err = newGuard(service); err != nil {
			return err
		}
		defer cfg.guard.Close()
		if cfg.chat, err = newChat(demos.chat.url(), logger); err != nil {
			return err
		}
		defer cfg.chat.Close()
	}
	if opt.canary != nil {
		last := len(cfg.targets) - 1
		cfg.canary = &canary{cfg.targets[last], *opt.canary}
		cfg.targets = cfg.targets[:last]
	}
	g, err := newGateway(cfg)
	if err != nil {
		return err
	}
	defer g.Close() // before the store is closed; it has nothing to say

	var handlers running
	srv := newServer(handlers.count(g), logger)
	srv.BaseContext = func(net.Listener) context.Context { return requests }
	srv.RegisterOnShutdown(endStreams)
	if err := wsproxy.Prepare(srv); err != nil {
		logger.Warn("there are no WebSockets over HTTP/2", "error", err)
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	greet(stdout, ln.Addr(), cfg, opt.store)

	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	logger.Info("stopping", "grace", opt.grace)
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), opt.grace)
	defer cancel()
	var leaving sync.WaitGroup
	leaving.Go(func() { g.sockets.Shutdown(within) }) // what it cuts is in its log
	if err := srv.Shutdown(within); err != nil {
		logger.Warn("requests still in flight were cut", "error", err)
		srv.Close()
	}
	leaving.Wait()
	<-failed
	cut()
	handlers.wait(within)
	logger.Info("stopped")
	return nil
}

// running counts the handlers that have not returned. A server that is shut down
// waits for its connections, which those that were upgraded are none of any more,
// and their handlers still have a line to log.
type running struct{ n atomic.Int64 }

func (c *running) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.n.Add(1)
		defer c.n.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// wait returns when there are none, or ctx has ended. It asks again and again, as
// [http.Server.Shutdown] does: a handler may begin meanwhile, which a
// [sync.WaitGroup] does not allow.
func (c *running) wait(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for c.n.Load() > 0 && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// listen is net.Listen with an error that says what to do.
func listen(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		return ln, nil
	}
	// "listen tcp 127.0.0.1:8080: bind: address already in use" down to its reason.
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sys.Err
	}
	return nil, fmt.Errorf("listen %s: %w (choose another with -listen)", addr, err)
}

// newLogger logs to w. The handler around the format is what puts request_id
// into each line that is logged with a request's context.
func newLogger(asJSON bool, w io.Writer) (*slog.Logger, error) {
	var format slog.Handler = slog.NewTextHandler(w, nil)
	if asJSON {
		format = slog.NewJSONHandler(w, nil)
	}
	h, err := reqid.NewLogHandler(reqid.LogConfig{Handler: format})
	if err != nil {
		return nil, err
	}
	return slog.New(h), nil
}

// greet says where the gateway is and what to try. Double quotes, because both
// Unix shells and Windows understand them.
func greet(w io.Writer, addr net.Addr, cfg config, kept storeSpec) {
	base := "http://" + reachable(addr)
	fmt.Fprintf(w, "gateway: listening on %s\n", base)
	for _, u := range cfg.targets {
		fmt.Fprintf(w, "gateway: back end %s\n", u)
	}
	if c := cfg.canary; c != nil {
		fmt.Fprintf(w, "gateway: back end %s for %v%% of the clients\n", c.target, float64(c.share)*100/upstream.SplitScale)
	}
	fmt.Fprintf(w, "gateway: store %s\n", kept)
	fmt.Fprintln(w, "\nTry:")
	if cfg.routes == nil {
		fmt.Fprintf(w, "  curl -i %s/\n", base)
		if hasOperator(addr) {
			fmt.Fprintf(w, "  curl %s/-/breakers\n      how the back ends do; only this machine may ask\n", base)
		}
		fmt.Fprintln(w)
		return
	}
	fmt.Fprintf(w, "  curl -i %s/hello\n      the ID in the header is the one that the back end saw\n", base)
	fmt.Fprintf(w, "  curl -i \"%s/slow?ms=5000\"\n      too slow for its route: the limit answers after 2 seconds\n", base)
	fmt.Fprintf(w, "  curl -i -H \"X-Api-Key: demo\" %s/hello\n      what is left of each limit is in RateLimit; more than 10 at once are refused with 429\n", base)
	fmt.Fprintf(w, "  curl -i -H \"Authorization: Bearer demo\" %s/private\n      guarded: 200, and the back end knows who it is\n", base)
	fmt.Fprintf(w, "  curl -i -H \"Authorization: Bearer other\" %s/private\n      401, from the decision service\n", base)
	fmt.Fprintf(w, "  curl -i -H \"Accept: text/html\" %s/private\n      302: a browser is sent to the login, and gets 200 after it\n", base)
	if cfg.hooks != nil {
		fmt.Fprintf(w, "  %s\n      a signed webhook: handled once, and again only answered; with another body refused\n", cfg.hooks.curl(base))
	}
	fmt.Fprintf(w, "  %s/login\n      in a browser: a login that survives a restart of the gateway\n", base)
	fmt.Fprintf(w, "  %s%s\n      in two browser windows: a chat over WebSockets\n", base, chatRoute)
	fmt.Fprintf(w, "  curl -N %s/events\n      server-sent events, each as it happens; Ctrl-C here ends them\n", base)
	fmt.Fprintf(w, "  curl -i \"%s/posts?author=ann&limit=3&total=1\"\n      a page of a list, and all of it from the root of the repository with\n      go -C examples run ./walk \"%s/posts?author=ann\"\n", base, base)
	if hasOperator(addr) {
		fmt.Fprintf(w, "  curl -X POST \"%s/-/demo/kill?backend=one\" --next -s \"%s/hello?[1-20]\"\n      a back end dies: the other answers all, and the breaker opens\n", base, base)
		fmt.Fprintf(w, "  curl %s/-/breakers\n      how the back ends do; 5 seconds later half-open\n", base)
		fmt.Fprintf(w, "  curl -X POST \"%s/-/demo/start?backend=one\" --next -s \"%s/hello?[1-20]\"\n      it is back: some requests on trial, and the breaker closes\n", base, base)
	}
	fmt.Fprintln(w)
}

// hasOperator reports whether somebody on this machine can be seen to be there:
// see isLocal.
func hasOperator(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && (tcp.IP.IsLoopback() || tcp.IP.IsUnspecified())
}

// reachable is addr as a client on this machine writes it.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
}
