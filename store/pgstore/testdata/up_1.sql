BEGIN;

SELECT pg_catalog.pg_advisory_xact_lock($1::bigint);

SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
		WHERE s.nspname = $1::name AND c.relname = $2::name);

SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::name);

CREATE SCHEMA "plainware";

CREATE TABLE "plainware"."version" (version int NOT NULL, created_schema boolean NOT NULL);

INSERT INTO "plainware"."version" VALUES (0, $1::boolean);

CREATE TABLE "plainware"."value" (k bytea PRIMARY KEY, v bytea NOT NULL, exp bigint NOT NULL);

COMMENT ON TABLE "plainware"."value" IS 'values by key; exp is when they expire, ns since 1970';

CREATE UNLOGGED TABLE "plainware"."register" (k bytea PRIMARY KEY, v bigint NOT NULL, exp bigint NOT NULL) WITH (fillfactor = 70);

COMMENT ON TABLE "plainware"."register" IS 'registers by space, a zero byte, key; exp is when they expire, ns since 1970';

CREATE FUNCTION "plainware"."advance"(key bytea, clock boolean, floor_ bigint, ceil_ bigint, over_ bigint,
  step bigint, min_ bigint, max_ bigint, ttl bigint,
  OUT value bigint, OUT granted bigint, OUT now bigint, OUT expires bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  cur bigint; cexp bigint; live boolean; f bigint; c bigint; base bigint; n bigint;
  heal boolean; refused boolean; seen boolean; locked boolean := false;
BEGIN
  IF step >= 0 AND max_ > 0 AND floor_ + step * max_ <= ceil_ THEN
    IF clock THEN
      UPDATE "plainware"."register" AS r
        SET v = greatest(CASE WHEN r.exp > ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000) THEN r.v END, ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000) + floor_) + step * max_,
          exp = greatest(CASE WHEN r.exp > ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000) THEN r.v END, ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000) + floor_) + step * max_ - floor_
        WHERE r.k = key AND (r.exp <= ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000) OR r.v + step * max_ <= ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000) + ceil_)
        RETURNING r.v, max_, least(((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000), r.v - step * max_ - floor_), r.exp INTO value, granted, now, expires;
    ELSE
      UPDATE "plainware"."register" AS r
        SET v = greatest(r.v, floor_) + step * max_
        WHERE r.k = key AND r.exp > ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000) AND r.v + step * max_ <= ceil_
        RETURNING r.v, max_, least(((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000), r.exp - 1), r.exp INTO value, granted, now, expires;
    END IF;
    IF FOUND THEN RETURN; END IF;
  END IF;

  LOOP
    IF locked THEN
      SELECT r.v, r.exp INTO cur, cexp FROM "plainware"."register" AS r WHERE r.k = key FOR UPDATE;
    ELSE
      SELECT r.v, r.exp INTO cur, cexp FROM "plainware"."register" AS r WHERE r.k = key;
    END IF;
    seen := FOUND;
    now := ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000);
      live := coalesce(cexp > now, false);
      f := CASE WHEN clock THEN now + floor_ ELSE floor_ END;
      c := CASE WHEN clock THEN now + ceil_ ELSE ceil_ END;
      base := CASE WHEN live THEN greatest(cur, f) ELSE f END;
      heal := live AND clock AND base > c + over_ + 1000000000;
      IF heal THEN base := c; END IF;
      n := max_;
      IF step > 0 THEN n := least(max_, greatest(0, c - base) / step); END IF;
      refused := n < min_;
      IF refused THEN n := 0; END IF;
    value := greatest(base + n * step, f);
    granted := n;
    expires := CASE WHEN clock THEN value - floor_ WHEN live THEN cexp WHEN n = 0 THEN 0 WHEN ttl = 0 THEN 9223372036854775807 ELSE now + ttl END;
    IF n = 0 AND NOT heal THEN RETURN; END IF;
    IF NOT seen THEN
      INSERT INTO "plainware"."register" AS r VALUES (key, value, expires) ON CONFLICT DO NOTHING;
      IF FOUND THEN RETURN; END IF;
    ELSIF locked THEN
      UPDATE "plainware"."register" AS r SET v = value, exp = expires WHERE r.k = key;
      RETURN;
    END IF;
    locked := true;
  END LOOP;
END $$;

CREATE FUNCTION "plainware"."advance_batch"(keys bytea[], args bigint[],
  OUT value bigint, OUT granted bigint, OUT now bigint, OUT expires bigint) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  r record; j int := 0;
BEGIN
  FOR i IN 1 .. pg_catalog.cardinality(keys) LOOP
    r := "plainware"."advance"(keys[i], args[j+1] <> 0, args[j+2], args[j+3], args[j+4], args[j+5], args[j+6], args[j+7], args[j+8]);
    value := r.value; granted := r.granted; now := r.now; expires := r.expires;
    RETURN NEXT;
    j := j + 8;
  END LOOP;
END $$;

CREATE FUNCTION "plainware"."advance_all"(keys bytea[], args bigint[],
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
        SELECT r.v, r.exp INTO cur, cexp FROM "plainware"."register" AS r WHERE r.k = keys[i];
      ELSE
        LOOP
          SELECT r.v, r.exp INTO cur, cexp FROM "plainware"."register" AS r WHERE r.k = keys[i] FOR UPDATE;
          EXIT WHEN FOUND;
          INSERT INTO "plainware"."register" AS r VALUES (keys[i], 0, 0) ON CONFLICT DO NOTHING;
        END LOOP;
      END IF;
      curs[i] := cur; cexps[i] := cexp;
    END LOOP;

    now := ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1e6::float8)::bigint * 1000);
    applied := true; healing := false;
    FOR i IN 1 .. m LOOP
      j := 8 * i - 8;
      clock := args[j+1] <> 0; floor_ := args[j+2]; ceil_ := args[j+3]; over_ := args[j+4];
      step := args[j+5]; min_ := args[j+6]; max_ := args[j+7]; ttl := args[j+8];
      cur := curs[i]; cexp := cexps[i];
      live := coalesce(cexp > now, false);
      f := CASE WHEN clock THEN now + floor_ ELSE floor_ END;
      c := CASE WHEN clock THEN now + ceil_ ELSE ceil_ END;
      base := CASE WHEN live THEN greatest(cur, f) ELSE f END;
      heal := live AND clock AND base > c + over_ + 1000000000;
      IF heal THEN base := c; END IF;
      n := max_;
      IF step > 0 THEN n := least(max_, greatest(0, c - base) / step); END IF;
      refused := n < min_;
      IF refused THEN n := 0; END IF;
      IF pass = 1 THEN locks[i] := max_ <> 0 OR heal; END IF;
      bases[i] := base; floors[i] := f; ns[i] := n; heals[i] := heal AND locks[i];
      expiries[i] := CASE WHEN live THEN cexp WHEN ttl = 0 THEN 9223372036854775807 ELSE now + ttl END;
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
      UPDATE "plainware"."register" AS r SET v = value, exp = expires WHERE r.k = keys[i];
    END IF;
    RETURN NEXT;
  END LOOP;
END $$;

UPDATE "plainware"."version" SET version = $1::int;

COMMIT;
