// Walk prints the items of a paged list, one JSON value a line, page after page:
// of the gateway's demo, or of any server that links to the next page with a
// Link field or in the body.
//
//	go run ./walk http://127.0.0.1:8080/posts
//	go run ./walk "http://127.0.0.1:8080/posts?author=ann&limit=100"
//	go run ./walk -pages 3 https://api.github.com/repositories/23096959/tags
//	go run ./walk -items results -next next https://api.example.com/things
//
// It stays on the scheme, host and port of the first page. The exit status is 0,
// or 1 after one line that says what was wrong.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"example.com/plainware/paginate"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "walk: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("walk", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	items := fs.String("items", "items", "`member` of the body that has the items; a body that is an array needs none")
	next := fs.String("next", "", "`member` of the body that has the URL of the next page; without it the Link field counts")
	pages := fs.Int("pages", 0, "most `pages` to read; 0 is all")
	header := make(http.Header)
	fs.Func("header", "`name: value` to send, such as \"Authorization: Bearer …\"; repeat it for more", func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if !ok {
			return errors.New("want name: value")
		}
		header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(out, "Usage: walk [-items member] [-next member] [-pages n] [-header \"name: value\"]... URL")
			fs.SetOutput(out)
			fs.PrintDefaults()
		}
		return err
	}
	if fs.NArg() != 1 {
		return errors.New("want one URL (try -h)")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fs.Arg(0), nil)
	if err != nil {
		return err
	}
	req.Header = header

	w, err := paginate.NewWalker(paginate.WalkerConfig{
		Client:   &http.Client{Timeout: time.Minute}, // for each page
		MaxPages: *pages,
	})
	if err != nil {
		return err
	}
	for item, err := range paginate.WalkWith(w, req, reader(*items, *next)) {
		if errors.Is(err, paginate.ErrPages) {
			return nil // as it was told
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", item); err != nil {
			return err
		}
	}
	return nil
}

// reader reads both kinds of pages: arrays, and objects with a member for the
// items.
func reader(items, next string) paginate.Reader[json.RawMessage] {
	array, object := paginate.JSON[json.RawMessage]("", ""), paginate.JSON[json.RawMessage](items, next)
	return func(res *http.Response) ([]json.RawMessage, string, error) {
		body, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
		if err != nil {
			return nil, "", err
		}
		copied := *res
		copied.Body = io.NopCloser(strings.NewReader(string(body)))
		if strings.HasPrefix(strings.TrimSpace(string(body)), "[") {
			return array(&copied)
		}
		return object(&copied)
	}
}
