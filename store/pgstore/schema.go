package pgstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
)

// names are the identifiers of one store, quoted and qualified.
type names struct {
	schema, prefix                    string // as configured, the others are quoted
	value, register, version          string
	advance, advanceBatch, advanceAll string
	lock                              int64 // of migrations in this schema, advisory
}

func newNames(schema, prefix string) names {
	in := func(name string) string { return quote(schema) + "." + quote(prefix+name) }
	h := fnv.New64a()
	h.Write([]byte("plainware/pgstore " + schema))
	return names{
		schema:       schema,
		prefix:       prefix,
		value:        in("value"),
		register:     in("register"),
		version:      in("version"),
		advance:      in("advance"),
		advanceBatch: in("advance_batch"),
		advanceAll:   in("advance_all"),
		lock:         int64(h.Sum64()),
	}
}

// quote makes an identifier of s, which [checkName] has passed.
func quote(s string) string { return `"` + s + `"` }

// fill puts the names and the shared pieces of SQL into text.
func (n names) fill(text string) string {
	return strings.NewReplacer(
		"{value}", n.value,
		"{register}", n.register,
		"{version}", n.version,
		"{advance}", n.advance,
		"{advance_batch}", n.advanceBatch,
		"{advance_all}", n.advanceAll,
		"{judge}", judge,
		"{clock}", clock,
		"{never}", never,
	).Replace(text)
}

const (
	// Functions are named with their schema, parameters of functions with their
	// types, and what is multiplied has one type: otherwise somebody who may
	// create functions or operators in a schema of the search path, as everybody
	// may in public before PostgreSQL 15, could create one that fits better.

	// clock is the server's clock, ns since 1970. A double has room for the
	// microseconds until the year 2255, and is several times as fast as numeric.
	clock = `((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000)`

	// never is when a row without a ttl expires.
	never = `9223372036854775807`

	// judge is store.Op.Apply in PL/pgSQL, given now, and the row in cur and
	// cexp, NULL if there is none. Its 10^9 is store.HealSlack. What is absent is
	// not healed: that changes nothing but would be stored.
	judge = `
      live := coalesce(cexp > now, false);
      f := CASE WHEN clock THEN now + floor_ ELSE floor_ END;
      c := CASE WHEN clock THEN now + ceil_ ELSE ceil_ END;
      base := CASE WHEN live THEN greatest(cur, f) ELSE f END;
      heal := live AND clock AND base > c + over_ + 1000000000;
      IF heal THEN base := c; END IF;
      n := max_;
      IF step > 0 THEN n := least(max_, greatest(0, c - base) / step); END IF;
      refused := n < min_;
      IF refused THEN n := 0; END IF;`
)

// Version is the newest version of the tables and functions that this package
// knows, and the one it works with.
const Version = 1

// A migration leads from the version before it to its own, which is its place
// in migrations, and back. One that was released never changes.
type migration struct{ up, down []string }

var migrations = []migration{{
	up: []string{
		`CREATE TABLE {value} (k bytea PRIMARY KEY, v bytea NOT NULL, exp bigint NOT NULL)`,
		`COMMENT ON TABLE {value} IS 'values by key; exp is when they expire, ns since 1970'`,

		// The free space keeps an update on its page, so that it need not touch
		// the index; that is also why exp has none.
		`CREATE UNLOGGED TABLE {register} (k bytea PRIMARY KEY, v bigint NOT NULL, exp bigint NOT NULL) WITH (fillfactor = 70)`,
		`COMMENT ON TABLE {register} IS 'registers by space, a zero byte, key; exp is when they expire, ns since 1970'`,
		createAdvance, createAdvanceBatch, createAdvanceAll,
	},
	down: []string{
		`DROP FUNCTION {advance_all}(bytea[], bigint[])`,
		`DROP FUNCTION {advance_batch}(bytea[], bigint[])`,
		`DROP FUNCTION {advance}(bytea, boolean, bigint, bigint, bigint, bigint, bigint, bigint, bigint)`,
		`DROP TABLE {register}`,
		`DROP TABLE {value}`,
	},
}}

// createAdvance does one operation. What a limiter does most of the time, a
// grant of all that was asked for from a register that exists, is one
// statement: an UPDATE judges the row, and judges it again, clock and all, if
// somebody has changed it before it had the lock. It reads the clock more than
// once, and so reports the instant that fits what it has stored: between the
// first reading and the last, and not after the one that a stored floor was
// computed from.
//
// The rest takes the clear way: read, and return if nothing is to be stored;
// otherwise lock, read again, and store.
const createAdvance = `CREATE FUNCTION {advance}(key bytea, clock boolean, floor_ bigint, ceil_ bigint, over_ bigint,
  step bigint, min_ bigint, max_ bigint, ttl bigint,
  OUT value bigint, OUT granted bigint, OUT now bigint, OUT expires bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  cur bigint; cexp bigint; live boolean; f bigint; c bigint; base bigint; n bigint;
  heal boolean; refused boolean; seen boolean; locked boolean := false;
BEGIN
  IF step >= 0 AND max_ > 0 AND floor_ + step * max_ <= ceil_ THEN
    IF clock THEN
      UPDATE {register} AS r
        SET v = greatest(CASE WHEN r.exp > {clock} THEN r.v END, {clock} + floor_) + step * max_,
          exp = greatest(CASE WHEN r.exp > {clock} THEN r.v END, {clock} + floor_) + step * max_ - floor_
        WHERE r.k = key AND (r.exp <= {clock} OR r.v + step * max_ <= {clock} + ceil_)
        RETURNING r.v, max_, least({clock}, r.v - step * max_ - floor_), r.exp INTO value, granted, now, expires;
    ELSE
      UPDATE {register} AS r
        SET v = greatest(r.v, floor_) + step * max_
        WHERE r.k = key AND r.exp > {clock} AND r.v + step * max_ <= ceil_
        RETURNING r.v, max_, least({clock}, r.exp - 1), r.exp INTO value, granted, now, expires;
    END IF;
    IF FOUND THEN RETURN; END IF;
  END IF;

  LOOP
    IF locked THEN
      SELECT r.v, r.exp INTO cur, cexp FROM {register} AS r WHERE r.k = key FOR UPDATE;
    ELSE
      SELECT r.v, r.exp INTO cur, cexp FROM {register} AS r WHERE r.k = key;
    END IF;
    seen := FOUND;
    now := {clock};{judge}
    value := greatest(base + n * step, f);
    granted := n;
    expires := CASE WHEN clock THEN value - floor_ WHEN live THEN cexp WHEN n = 0 THEN 0 WHEN ttl = 0 THEN {never} ELSE now + ttl END;
    IF n = 0 AND NOT heal THEN RETURN; END IF;
    IF NOT seen THEN
      INSERT INTO {register} AS r VALUES (key, value, expires) ON CONFLICT DO NOTHING;
      IF FOUND THEN RETURN; END IF;
    ELSIF locked THEN
      UPDATE {register} AS r SET v = value, exp = expires WHERE r.k = key;
      RETURN;
    END IF;
    locked := true;
  END LOOP;
END $$`

// createAdvanceBatch does the operations in their order. args has eight
// numbers for each, see [appendArgs].
const createAdvanceBatch = `CREATE FUNCTION {advance_batch}(keys bytea[], args bigint[],
  OUT value bigint, OUT granted bigint, OUT now bigint, OUT expires bigint) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  r record; j int := 0;
BEGIN
  FOR i IN 1 .. pg_catalog.cardinality(keys) LOOP
    r := {advance}(keys[i], args[j+1] <> 0, args[j+2], args[j+3], args[j+4], args[j+5], args[j+6], args[j+7], args[j+8]);
    value := r.value; granted := r.granted; now := r.now; expires := r.expires;
    RETURN NEXT;
    j := j + 8;
  END LOOP;
END $$`

// createAdvanceAll judges all operations at one instant, first without locks,
// then, if none refuses, or one has to heal its register, with those rows locked
// that may be written, in the order of keys. Only they are: whatever is found
// out later must not add a lock that is out of order, or write over what was
// read without one. A register that is to be locked but absent gets a row that
// has expired.
const createAdvanceAll = `CREATE FUNCTION {advance_all}(keys bytea[], args bigint[],
  OUT applied boolean, OUT value bigint, OUT granted bigint, OUT now bigint, OUT expires bigint) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  m int := pg_catalog.cardinality(keys); j int; cur bigint; cexp bigint; live boolean; f bigint; c bigint; base bigint; n bigint;
  heal boolean; refused boolean; clock boolean; floor_ bigint; ceil_ bigint; over_ bigint; step bigint; min_ bigint; max_ bigint; ttl bigint;
  curs bigint[]; cexps bigint[]; bases bigint[]; floors bigint[]; ns bigint[]; expiries bigint[]; heals boolean[]; locks boolean[]; healing boolean;
BEGIN
  FOR pass IN 1 .. 2 LOOP
    FOR i IN 1 .. m LOOP
      IF pass = 1 OR NOT locks[i] THEN
        SELECT r.v, r.exp INTO cur, cexp FROM {register} AS r WHERE r.k = keys[i];
      ELSE
        LOOP
          SELECT r.v, r.exp INTO cur, cexp FROM {register} AS r WHERE r.k = keys[i] FOR UPDATE;
          EXIT WHEN FOUND;
          INSERT INTO {register} AS r VALUES (keys[i], 0, 0) ON CONFLICT DO NOTHING;
        END LOOP;
      END IF;
      curs[i] := cur; cexps[i] := cexp;
    END LOOP;

    now := {clock};
    applied := true; healing := false;
    FOR i IN 1 .. m LOOP
      j := 8 * i - 8;
      clock := args[j+1] <> 0; floor_ := args[j+2]; ceil_ := args[j+3]; over_ := args[j+4];
      step := args[j+5]; min_ := args[j+6]; max_ := args[j+7]; ttl := args[j+8];
      cur := curs[i]; cexp := cexps[i];{judge}
      IF pass = 1 THEN locks[i] := max_ <> 0 OR heal; END IF;
      bases[i] := base; floors[i] := f; ns[i] := n; heals[i] := heal AND locks[i];
      expiries[i] := CASE WHEN live THEN cexp WHEN ttl = 0 THEN {never} ELSE now + ttl END;
      IF NOT live AND n = 0 THEN expiries[i] := 0; END IF;
      applied := applied AND NOT refused;
      healing := healing OR heal;
    END LOOP;
    EXIT WHEN NOT applied AND NOT healing;
  END LOOP;

  FOR i IN 1 .. m LOOP
    j := 8 * i - 8;
    granted := ns[i];
    value := greatest(CASE WHEN applied THEN bases[i] + granted * args[j+5] ELSE bases[i] END, floors[i]);
    expires := CASE WHEN args[j+1] <> 0 THEN value - args[j+2] WHEN applied OR cexps[i] > now THEN expiries[i] ELSE 0 END;
    IF heals[i] OR applied AND granted <> 0 THEN
      UPDATE {register} AS r SET v = value, exp = expires WHERE r.k = keys[i];
    END IF;
    RETURN NEXT;
  END LOOP;
END $$`

// Migrate takes the tables and functions of cfg to a version, up or down, in
// one transaction: all of it happens or nothing. [New] does it by itself on the
// way up; Migrate is for programs that prepare their databases beforehand, as a
// role with more rights, and for the way down. Version 0 removes what there is
// with all values and registers, and the schema too if it was created here and
// nothing else is in it. No store may be open on the tables on the way down, in
// any process.
//
// Any number of processes may call it at the same time, also beside New: they
// take turns. Of cfg it uses DB, Schema and Prefix; only ctx bounds it.
func Migrate(ctx context.Context, cfg Config, version int) error {
	n, err := cfg.check()
	if version < 0 || version > len(migrations) {
		err = errors.Join(err, fmt.Errorf("pgstore: version: must be 0 to %d (got %d)", len(migrations), version))
	}
	if err != nil {
		return err
	}
	if version > 0 {
		if err := checkServer(ctx, cfg.DB); err != nil {
			return err
		}
	}
	return migrate(ctx, cfg.DB, n, version)
}

// up leads to the newest version, and only reads if it is there already. What it
// cannot read may be what another process changes at this moment, and migrate
// finds out.
func up(ctx context.Context, db *sql.DB, n names) error {
	if at, err := readVersion(ctx, db, n); err == nil && at == len(migrations) {
		return nil
	}
	return migrate(ctx, db, n, len(migrations))
}

// migrate leads to version to, in one transaction, alone.
func migrate(ctx context.Context, db *sql.DB, n names, to int) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return failed(ctx, "migrate the schema", err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `SELECT pg_catalog.pg_advisory_xact_lock($1::bigint)`, n.lock); err != nil {
		return failed(ctx, "lock the schema", err)
	}
	at, err := readVersion(ctx, tx, n)
	if err != nil {
		return failed(ctx, "read the schema version", err)
	}
	if at > len(migrations) {
		return fmt.Errorf("pgstore: the tables in schema %q are of version %d, made by a newer release; this one knows %d", n.schema, at, len(migrations))
	}
	if err := steps(ctx, tx, n, at, to); err != nil {
		return failed(ctx, fmt.Sprintf("migrate the schema from version %d to %d", at, to), err)
	}
	if err := tx.Commit(); err != nil {
		return failed(ctx, "migrate the schema", err)
	}
	return nil
}

func steps(ctx context.Context, tx *sql.Tx, n names, at, to int) error {
	if at == 0 && to > 0 {
		if err := createVersion(ctx, tx, n); err != nil {
			return err
		}
	}
	for v := at; v < to; v++ {
		if err := run(ctx, tx, n, migrations[v].up); err != nil {
			return err
		}
	}
	for v := at; v > to; v-- {
		if err := run(ctx, tx, n, migrations[v-1].down); err != nil {
			return err
		}
	}
	switch {
	case to > 0 && at != to:
		_, err := tx.ExecContext(ctx, n.fill(`UPDATE {version} SET version = $1::int`), to)
		return err
	case to == 0 && at > 0:
		return dropVersion(ctx, tx, n)
	}
	return nil
}

// createVersion makes the schema, if it is not there, and the table that tells
// its version, and whether the schema is ours.
func createVersion(ctx context.Context, tx *sql.Tx, n names) error {
	var there bool
	// CREATE SCHEMA IF NOT EXISTS needs the right to create one even if it exists.
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::name)`, n.schema).Scan(&there); err != nil {
		return err
	}
	if !there {
		if _, err := tx.ExecContext(ctx, `CREATE SCHEMA `+quote(n.schema)); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, n.fill(`CREATE TABLE {version} (version int NOT NULL, created_schema boolean NOT NULL)`)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, n.fill(`INSERT INTO {version} VALUES (0, $1::boolean)`), !there)
	return err
}

func dropVersion(ctx context.Context, tx *sql.Tx, n names) error {
	var ours bool
	if err := tx.QueryRowContext(ctx, n.fill(`SELECT created_schema FROM {version}`)).Scan(&ours); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, n.fill(`DROP TABLE {version}`)); err != nil {
		return err
	}
	if !ours {
		return nil
	}
	var used bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_depend
		WHERE refclassid = 'pg_catalog.pg_namespace'::regclass::oid AND refobjid = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::name))`, n.schema).Scan(&used)
	if err != nil || used {
		return err
	}
	_, err = tx.ExecContext(ctx, `DROP SCHEMA `+quote(n.schema))
	return err
}

func run(ctx context.Context, tx *sql.Tx, n names, statements []string) error {
	for _, text := range statements {
		if _, err := tx.ExecContext(ctx, n.fill(text)); err != nil {
			return err
		}
	}
	return nil
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// readVersion returns the version of the schema, 0 if there is none.
func readVersion(ctx context.Context, q queryer, n names) (at int, err error) {
	var there bool
	// Not to_regclass, whose cache need not have noticed yet what was committed
	// while this transaction waited for its lock.
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
		WHERE s.nspname = $1::name AND c.relname = $2::name)`, n.schema, n.prefix+"version").Scan(&there)
	if err != nil || !there {
		return 0, err
	}
	err = q.QueryRowContext(ctx, n.fill(`SELECT version FROM {version}`)).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, errors.New("the version table is empty")
	}
	return at, err
}
