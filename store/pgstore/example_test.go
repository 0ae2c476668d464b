package pgstore_test

import (
	"context"
	"database/sql"
	"log"
	"time"

	"example.com/plainware/store/pgstore"
)

// The driver is the program's: import _ "github.com/jackc/pgx/v5/stdlib", say.
func ExampleNew() {
	ctx := context.Background()
	db, err := sql.Open("pgx", "postgres://app@db.internal/app")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)

	s, err := pgstore.New(ctx, pgstore.Config{DB: db})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	if err := s.Put(ctx, "greeting", []byte("hello"), time.Hour); err != nil {
		log.Fatal(err)
	}
}

// A deployment may prepare the database with one role, and let the program run
// with another that may do less. Version 0 removes everything again.
func ExampleMigrate() {
	db, err := sql.Open("pgx", "postgres://admin@db.internal/app")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := pgstore.Migrate(context.Background(), pgstore.Config{DB: db}, pgstore.Version); err != nil {
		log.Fatal(err)
	}
}
