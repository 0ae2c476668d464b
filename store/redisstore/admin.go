package redisstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"example.com/plainware/store"
)

// each returns what reaches each server once.
func (s *Store) each(ctx context.Context) ([]Do, error) {
	if !s.cluster {
		return []Do{s.do}, nil
	}
	if s.nodes == nil {
		return nil, errors.New("a cluster has several servers: set Config.Nodes")
	}
	reply, err := s.wait(ctx, func(ctx context.Context) (any, error) { return s.nodes(ctx) })
	if err != nil {
		return nil, err
	}
	nodes, _ := reply.([]Do)
	if len(nodes) == 0 {
		return nil, errors.New("Config.Nodes returned none")
	}
	return nodes, nil
}

// Scan implements [store.Scanner] with the command of the same name, which goes
// through all keys of the server. On a cluster it needs Config.Nodes, and may
// miss keys whose slots move at the time.
func (s *Store) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		nodes, err := s.each(ctx)
		if err != nil {
			yield("", s.fail("Scan", err))
			return
		}
		match := glob.Replace(s.values + prefix)
		for _, do := range nodes {
			for cursor := "0"; ; {
				keys, next, err := s.scan(ctx, do, cursor, match+"*")
				if err != nil {
					yield("", s.fail("Scan", err))
					return
				}
				for _, k := range keys {
					key, ok := text(k)
					if key, ok2 := strings.CutPrefix(key, s.values); ok && ok2 {
						if !yield(key, nil) {
							return
						}
					}
				}
				if cursor = next; cursor == "0" {
					break
				}
			}
		}
	}
}

// glob makes text of what would be a pattern.
var glob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

func (s *Store) scan(ctx context.Context, do Do, cursor, match string) (keys []any, next string, err error) {
	reply, err := s.callNode(ctx, do, "SCAN", cursor, "MATCH", match, "COUNT", "500")
	if err != nil {
		return nil, "", err
	}
	next, keys, err = parseScan(reply)
	return keys, next, err
}

// Keep implements [store.Keeper]. It asks the server for its settings, and
// returns s itself if they are such that values are neither evicted nor lost
// when the power fails: maxmemory 0 or maxmemory-policy noeviction, appendonly
// yes, appendfsync always. Otherwise its error says what to change;
// Config.TrustKeep skips the questions. It cannot know of changes later, nor of
// failovers to a replica, which may lack the last writes.
func (s *Store) Keep() (store.Store, error) {
	if s.trust {
		return s, nil
	}
	ctx := context.Background()
	nodes, err := s.each(ctx)
	if err != nil {
		return nil, s.fail("Keep", err)
	}
	for _, do := range nodes {
		if err := s.keeps(ctx, do); err != nil {
			return nil, s.fail("Keep", fmt.Errorf("%w (or set Config.TrustKeep if you know better)", err))
		}
	}
	return s, nil
}

func (s *Store) keeps(ctx context.Context, do Do) error {
	reply, err := s.callNode(ctx, do, "INFO")
	if err != nil {
		return fmt.Errorf("the server does not answer to INFO: %w", s.explain(err))
	}
	info, ok := text(reply)
	if !ok {
		return replyError("that of INFO", reply)
	}
	settings := make(map[string]string)
	for line := range strings.SplitSeq(info, "\n") {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			settings[k] = v
		}
	}
	var errs []error
	if role := settings["role"]; role != "master" && role != "primary" {
		errs = append(errs, fmt.Errorf("the server must be a primary, not a replica (role is %q)", role))
	}
	if policy := settings["maxmemory_policy"]; settings["maxmemory"] != "0" && policy != "noeviction" {
		errs = append(errs, fmt.Errorf("values may be evicted: set maxmemory-policy to noeviction, or maxmemory to 0 (it is %q)", policy))
	}
	if aof := settings["aof_enabled"]; aof != "1" {
		errs = append(errs, fmt.Errorf("writes are not logged: set appendonly to yes (aof_enabled is %q)", aof))
	}
	if reply, err := s.callNode(ctx, do, "CONFIG", "GET", "appendfsync"); err != nil {
		errs = append(errs, fmt.Errorf("whether appendfsync is always is unknown: %w", s.explain(err)))
	} else if fsync, _ := parseSetting(reply, "appendfsync"); fsync != "always" {
		errs = append(errs, fmt.Errorf("a power loss loses the last writes: set appendfsync to always (it is %q)", fsync))
	}
	return errors.Join(errs...)
}
