//go:build linux

package session

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"example.com/plainware/cookies/session"
	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
	"example.com/plainware/store/redisstore"
	"example.com/plainware/store/sqlitestore"
)

// The test binary is the program under test too, with these variables set.
const (
	appAddr  = "SESSION_APP_ADDR"
	appStore = "SESSION_APP_STORE" // kind and data source, separated by a space
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(appAddr); addr != "" {
		fmt.Fprintln(os.Stderr, app(addr, os.Getenv(appStore)))
		os.Exit(1)
	}
	code := m.Run()
	closeShared()
	os.Exit(code)
}

// page is what the program answers with.
type page struct {
	User  string
	Items []string
	PID   int
}

// app serves a shop until it is killed.
func app(addr, source string) error {
	kind, dsn, _ := strings.Cut(source, " ")
	st, err := openStore(context.Background(), kind, dsn)
	if err != nil {
		return err
	}
	sess, err := session.New(session.Config[shop]{Store: st, Name: "shop"})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	handle := func(path string, f func(s *session.Session[shop], r *http.Request) error) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			s := sess.MustFrom(r.Context())
			if err := f(s, r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			user, err1 := s.UserID()
			value, err2 := s.Load()
			if err := errors.Join(err1, err2); err != nil {
				return
			}
			json.NewEncoder(w).Encode(page{User: user, Items: value.Items, PID: os.Getpid()})
		})
	}
	handle("/", func(*session.Session[shop], *http.Request) error { return nil })
	handle("/login", func(s *session.Session[shop], r *http.Request) error { return s.Login(r.FormValue("user")) })
	handle("/logout", func(s *session.Session[shop], r *http.Request) error { return s.Logout() })
	handle("/rotate", func(s *session.Session[shop], r *http.Request) error { return s.Rotate() })
	handle("/revoke", func(s *session.Session[shop], r *http.Request) error {
		return sess.RevokeUser(r.Context(), r.FormValue("user"))
	})
	handle("/add", func(s *session.Session[shop], r *http.Request) error {
		return s.Update(func(v *shop) error {
			if item := r.FormValue("item"); !slices.Contains(v.Items, item) {
				v.Items = append(v.Items, item)
			}
			return nil
		})
	})
	return http.ListenAndServe(addr, sess.Handler(mux))
}

func openStore(ctx context.Context, kind, dsn string) (store.Store, error) {
	switch kind {
	case "sqlite":
		db, err := sql.Open("sqlite", dsn)
		if err != nil {
			return nil, err
		}
		return sqlitestore.New(ctx, sqlitestore.Config{DB: db})
	case "postgres":
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			return nil, err
		}
		return pgstore.New(ctx, pgstore.Config{DB: db})
	case "redis":
		rdb := redis.NewClient(&redis.Options{Addr: dsn})
		return redisstore.New(ctx, redisstore.Config{Do: func(ctx context.Context, args ...any) (any, error) {
			return rdb.Do(ctx, args...).Result()
		}})
	}
	return nil, fmt.Errorf("no store %q", kind)
}

// start runs a process of the shop until the end of the test, when it is killed
// as kill -9 does, and returns its URL.
func start(t *testing.T, source string) string {
	t.Helper()
	addr := prog.Start(t, func(addr string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), appAddr+"="+addr, appStore+"="+source)
		return cmd
	}, prog.Dial)
	return "http://" + addr
}
