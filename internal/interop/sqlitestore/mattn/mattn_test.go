package mattn_test

import (
	"os"
	"testing"

	_ "github.com/mattn/go-sqlite3"

	"example.com/plainware/internal/interop/sqlitestore"
)

var driver = sqlitestore.Driver{Name: "sqlite3"}

func TestMain(m *testing.M) { os.Exit(sqlitestore.Main(m, driver)) }

func TestStore(t *testing.T) { sqlitestore.Run(t, driver) }

func BenchmarkStore(b *testing.B) { sqlitestore.Bench(b, driver) }
