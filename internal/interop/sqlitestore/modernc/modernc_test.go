package modernc_test

import (
	"os"
	"testing"

	_ "modernc.org/sqlite"

	"example.com/plainware/internal/interop/sqlitestore"
)

var driver = sqlitestore.Driver{Name: "sqlite"}

func TestMain(m *testing.M) { os.Exit(sqlitestore.Main(m, driver)) }

func TestStore(t *testing.T) { sqlitestore.Run(t, driver) }

func BenchmarkStore(b *testing.B) { sqlitestore.Bench(b, driver) }
