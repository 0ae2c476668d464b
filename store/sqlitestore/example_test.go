package sqlitestore_test

import (
	"context"
	"database/sql"
	"log"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/sqlitestore"
)

func ExampleNew() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", "file:state.db") // with _ "modernc.org/sqlite"
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	s, err := sqlitestore.New(ctx, sqlitestore.Config{DB: db})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close() // before the DB

	// Must survive a power cut: written to the disk before Put returns.
	claims, err := store.Keep(s)
	if err != nil {
		log.Fatal(err)
	}
	if err := claims.Put(ctx, "webhook/evt_1", []byte("done"), 24*time.Hour); err != nil {
		log.Fatal(err)
	}
}

// Removing all tables again.
func ExampleMigrate() {
	db, err := sql.Open("sqlite", "file:state.db")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := sqlitestore.Migrate(context.Background(), sqlitestore.Config{DB: db}, 0); err != nil {
		log.Fatal(err)
	}
}
