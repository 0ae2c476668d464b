package ncruces_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3/vfs"

	"example.com/plainware/store"
	"example.com/plainware/store/sqlitestore"
)

// disk is a file system that keeps, beside each file, what a power cut would
// leave of it: the content at its last sync. Whether writes after that survive
// is a matter of luck, and this one has none.
type disk struct {
	vfs.VFSFilename
	mu    sync.Mutex
	syncs map[string]int // of each kind of file
}

func (d *disk) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return d.VFSFilename.Open(name, flags)
}

func (d *disk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := d.VFSFilename.OpenFilename(name, flags)
	if err != nil || name == nil || flags&(vfs.OPEN_MAIN_DB|vfs.OPEN_WAL) == 0 {
		return f, flags, err
	}
	kind := "db"
	if flags&vfs.OPEN_WAL != 0 {
		kind = "wal"
	}
	return &diskFile{File: f, disk: d, path: name.String(), kind: kind}, flags, nil
}

type diskFile struct {
	vfs.File
	disk       *disk
	path, kind string
}

func (f *diskFile) SharedMemory() vfs.SharedMemory {
	return f.File.(vfs.FileSharedMemory).SharedMemory()
}

func (f *diskFile) Sync(flags vfs.SyncFlag) error {
	if err := f.File.Sync(flags); err != nil {
		return err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.syncs[f.kind]++
	b, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	return os.WriteFile(synced(f.path), b, 0o600)
}

func (f *diskFile) Unwrap() vfs.File { return f.File }

func synced(path string) string {
	return filepath.Join(filepath.Dir(path), "synced", filepath.Base(path))
}

func (d *disk) count(kind string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs[kind]
}

// crash returns a copy of what a power cut now would leave of the database.
func (d *disk) crash(t *testing.T, path string) string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	after := filepath.Join(t.TempDir(), filepath.Base(path))
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(synced(path + suffix))
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(after+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return after
}

func openOn(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// What was written through Keep is there after a power cut, and all that was
// committed before it; what was not may be lost, but never in part.
func TestPowerCut(t *testing.T) {
	d := &disk{VFSFilename: vfs.Find("").(vfs.VFSFilename), syncs: make(map[string]int)}
	vfs.Register("powercut", d)
	t.Cleanup(func() { vfs.Unregister("powercut") }) // once all that is on it is closed
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.Mkdir(filepath.Dir(synced(path)), 0o700); err != nil {
		t.Fatal(err)
	}
	s, kept := openKept(t, "file:"+path+"?vfs=powercut")
	ctx := t.Context()
	if err := kept.Put(ctx, "first", []byte("kept"), 0); err != nil {
		t.Fatal(err)
	}

	// An ordinary write does not wait for the disk.
	before := d.count("wal")
	for i := range 20 {
		if err := s.Put(ctx, fmt.Sprint("plain", i), []byte("plain"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.count("wal") - before; n > 1 {
		t.Errorf("20 ordinary writes caused %d syncs", n)
	}
	lost := reopen(t, d.crash(t, path))
	if _, ok, err := lost.Get(ctx, "first"); !ok || err != nil {
		t.Errorf("a kept value is lost: %v, %v", ok, err)
	}
	if _, ok, err := lost.Get(ctx, "plain19"); ok || err != nil {
		t.Errorf("the power cut is not one: an unsynced value is there: %v, %v", ok, err)
	}

	// A kept one does, and takes along what came before it.
	before = d.count("wal")
	if swapped, err := kept.CompareAndSwap(ctx, "second", nil, []byte("kept"), 0); !swapped || err != nil {
		t.Fatal(swapped, err)
	}
	if d.count("wal") == before {
		t.Error("a kept write caused no sync")
	}
	after := reopen(t, d.crash(t, path))
	for i := range 20 {
		if _, ok, err := after.Get(ctx, fmt.Sprint("plain", i)); !ok || err != nil {
			t.Errorf("plain%d was committed before a kept write and is lost: %v, %v", i, ok, err)
		}
	}

	// In a storm of both, across checkpoints, cut at any moment.
	s, kept = openKept(t, "file:"+path+"?vfs=powercut&_pragma=wal_autocheckpoint(20)")
	storm, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var mu sync.Mutex
	acked := make(map[string]bool)
	for g := range 8 {
		wg.Go(func() {
			for i := 0; storm.Err() == nil; i++ {
				key := fmt.Sprintf("storm-%d-%d", g, i)
				if g%2 == 0 {
					s.Put(ctx, key, make([]byte, 3000), 0)
					continue
				}
				if err := kept.Put(ctx, key, []byte(key), 0); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[key] = true
				mu.Unlock()
			}
		})
	}
	for range 5 {
		<-time.After(100 * time.Millisecond)
		mu.Lock()
		var keys []string
		for key := range acked {
			keys = append(keys, key)
		}
		mu.Unlock()
		after := reopen(t, d.crash(t, path))
		for _, key := range keys {
			if v, ok, err := after.Get(ctx, key); string(v) != key || !ok || err != nil {
				t.Fatalf("%s was acknowledged and is lost: %q, %v, %v", key, v, ok, err)
			}
		}
		t.Logf("%d kept values survived a power cut after %d syncs of the WAL and %d of the file", len(keys), d.count("wal"), d.count("db"))
	}
	stop()
	wg.Wait()
}

// openKept opens a store and its Keep view.
func openKept(t *testing.T, dsn string) (*sqlitestore.Store, store.Store) {
	t.Helper()
	s, err := sqlitestore.New(t.Context(), sqlitestore.Config{DB: openOn(t, dsn)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	kept, err := store.Keep(s)
	if err != nil {
		t.Fatal(err)
	}
	return s, kept
}

// reopen opens what was left, on the ordinary file system, and checks it.
func reopen(t *testing.T, path string) *sqlitestore.Store {
	t.Helper()
	db := openOn(t, "file:"+path)
	var sound string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
		t.Fatalf("integrity_check: %q, %v", sound, err)
	}
	s, err := sqlitestore.New(t.Context(), sqlitestore.Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
