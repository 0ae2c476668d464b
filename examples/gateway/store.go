package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
	"example.com/plainware/store/redisstore"
	"example.com/plainware/store/sqlitestore"
)

// The store is where handlers keep what shall outlive a request, or a restart,
// or be shared with other gateways. Which of them do is seen in newGateway.
// Whatever they keep, it is opened before the first request and asked for a
// round trip, so that a wrong address or password ends the start and not a
// request. For a program of your own, take the one function of the backend
// that you have and leave the rest of this file out.

// storeSpec is a -store flag that was understood.
type storeSpec struct {
	kind     string // memory, sqlite, redis or postgres
	path     string // of sqlite
	ours     bool   // path is the default: make its directory
	redis    *redis.Options
	postgres *pgx.ConnConfig
	shown    string
}

// String is the store as it may be printed: without passwords.
func (s storeSpec) String() string { return s.shown }

// defaultStore is a file that both outlives the gateway and needs no server.
const defaultStore = "sqlite"

// openWithin bounds the opening of the store.
const openWithin = 5 * time.Second

// parseStore reads a -store flag. Its errors are one line each and never show
// a password.
func parseStore(s string) (storeSpec, error) {
	spec := storeSpec{shown: redact(s)}
	bad := func(format string, a ...any) (storeSpec, error) {
		return storeSpec{}, fmt.Errorf("-store: %s (got %q)", fmt.Sprintf(format, a...), spec.shown)
	}
	scheme, rest, _ := strings.Cut(s, ":")
	switch {
	case s == "memory":
		spec.kind, spec.shown = "memory", "memory, until the gateway ends"
		return spec, nil
	case s == "sqlite":
		dir, err := os.UserCacheDir()
		if err != nil {
			return bad("there is no cache directory to put a file into, %v: name the file, as in sqlite:gateway.db, or use memory", err)
		}
		rest, spec.ours = filepath.Join(dir, "plainware", "gateway.db"), true
	case scheme == "sqlite" && rest == "":
		return bad("the path is missing")
	case scheme == "sqlite" && rest == ":memory:":
		return bad("what is to be kept in memory is kept with memory")
	case scheme == "sqlite" && strings.HasPrefix(rest, "//"):
		return bad("want a path, not a URL: sqlite:/var/lib/gateway.db or sqlite:gateway.db")
	}
	switch scheme {
	case "sqlite":
		path, err := filepath.Abs(rest)
		if err != nil {
			return bad("%v", err)
		}
		spec.kind, spec.path, spec.shown = "sqlite", path, "sqlite:"+path
		return spec, nil
	case "redis", "rediss", "postgres", "postgresql":
		// The drivers quote the URL in their errors where it is none.
		if _, err := url.Parse(s); err != nil || !strings.HasPrefix(rest, "//") {
			return bad("want a URL such as %s://127.0.0.1/; odd characters in a password are written as in %%40", scheme)
		}
		var err error
		if strings.HasPrefix(scheme, "redis") {
			spec.kind = "redis"
			spec.redis, err = redis.ParseURL(s)
		} else {
			spec.kind = "postgres"
			spec.postgres, err = pgx.ParseConfig(s)
		}
		if err != nil {
			text := oneLine(err)
			if _, reason, ok := strings.Cut(text, "`: "); ok { // after the URL
				text = reason
			}
			return bad("%s", strings.TrimPrefix(text, "redis: "))
		}
		return spec, nil
	}
	return bad("want memory, sqlite:PATH, redis://HOST or postgres://HOST")
}

// redact is a -store flag as it may be shown. A password may stand before the
// host, or in the query, or, when somebody did not escape it, anywhere.
func redact(s string) string {
	scheme, rest, isURL := strings.Cut(s, "://")
	if !isURL {
		if strings.ContainsAny(s, "@=") && !strings.HasPrefix(s, "sqlite:") {
			return "…"
		}
		return s
	}
	u, err := url.Parse(s)
	if err != nil || strings.Count(rest, "@") > 1 || strings.Contains(rest, "@") && u.User == nil {
		return scheme + "://…"
	}
	if _, ok := u.User.Password(); ok {
		u.User = url.UserPassword(u.User.Username(), "xxxxx")
	} else if u.User != nil && strings.HasPrefix(scheme, "redis") {
		u.User = url.User("xxxxx") // a name alone means nothing there: it is a password without its colon
	}
	u.RawQuery, u.ForceQuery, u.Fragment = "", false, ""
	return u.String()
}

// openStore opens the store, and has it keep something and give it back. The
// error is one line. What it returns last closes the store and whatever is
// below it, once no handler runs any more.
func openStore(ctx context.Context, spec storeSpec) (s store.Store, closeStore func() error, err error) {
	switch spec.kind {
	case "memory":
		s, closeStore, err = openMemory()
	case "sqlite":
		s, closeStore, err = openSQLite(ctx, spec)
	case "redis":
		s, closeStore, err = openRedis(ctx, spec)
	case "postgres":
		s, closeStore, err = openPostgres(ctx, spec)
	default:
		err = errors.New("none was chosen")
	}
	if err == nil {
		if err = roundTrip(ctx, s); err != nil {
			closeStore()
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("-store: %s cannot be used: %s", spec, oneLine(err))
	}
	return s, closeStore, nil
}

func openMemory() (store.Store, func() error, error) {
	m, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		return nil, nil, err
	}
	return m, m.Close, nil
}

// openSQLite opens a file. Any number of gateways on one host may share it.
func openSQLite(ctx context.Context, spec storeSpec) (store.Store, func() error, error) {
	if spec.ours {
		if err := os.MkdirAll(filepath.Dir(spec.path), 0o700); err != nil {
			return nil, nil, err
		}
	}
	// SQLite would make a file that everybody may read, and says little about
	// one that it cannot make.
	f, err := os.OpenFile(spec.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return nil, nil, err
	}
	db, err := sql.Open("sqlite", fileURL(spec.path))
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxIdleConns(max(2, runtime.GOMAXPROCS(0)))
	s, err := sqlitestore.New(ctx, sqlitestore.Config{DB: db})
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	return s, func() error { return errors.Join(s.Close(), db.Close()) }, nil
}

// fileURL is a path as the driver takes it, whatever characters are in it.
func fileURL(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

// openRedis has two settings that redisstore asks for: no second attempts, and
// deadlines that are kept.
func openRedis(ctx context.Context, spec storeSpec) (store.Store, func() error, error) {
	opt := *spec.redis
	opt.MaxRetries = -1
	opt.ContextTimeoutEnabled = true
	rdb := redis.NewClient(&opt)
	s, err := redisstore.New(ctx, redisstore.Config{
		Do: func(ctx context.Context, args ...any) (any, error) { return rdb.Do(ctx, args...).Result() },
	})
	if err != nil {
		rdb.Close()
		return nil, nil, err
	}
	return s, rdb.Close, nil
}

func openPostgres(ctx context.Context, spec storeSpec) (store.Store, func() error, error) {
	db := stdlib.OpenDB(*spec.postgres)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16) // the default would close and open them all the time
	s, err := pgstore.New(ctx, pgstore.Config{DB: db})
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	return s, func() error { return errors.Join(s.Close(), db.Close()) }, nil
}

// roundTrip finds out what opening does not: a disk that is full, say.
func roundTrip(ctx context.Context, s store.Store) error {
	key, value := "plainware/gateway/v1/start/"+rand.Text(), []byte("here")
	if err := s.Put(ctx, key, value, time.Minute); err != nil {
		return err
	}
	got, ok, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	if !ok || !bytes.Equal(got, value) {
		return errors.New("it does not give back what it was given")
	}
	return s.Delete(ctx, key)
}

// oneLine is what err says on one line. Some drivers make several, one for each
// address that they have tried, and the same one again.
func oneLine(err error) string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": ")
}
