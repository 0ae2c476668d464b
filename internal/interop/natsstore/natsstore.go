// Package natsstore is a backend as a user of the kit may write one for a server
// of theirs: a [store.Store] in NATS JetStream, four methods and what they share.
// It is an example to copy, and passes store/storetest against a real server.
//
// A value is the last message of its subject, in a stream that keeps one message
// for each, as a NATS key-value bucket does. Two things make it a Store:
//
//   - Time. A message has a lifetime in whole seconds, after which the server
//     reclaims it. That is too coarse for a ttl, so the exact one is in a header,
//     and is added to the instant that the server gave the message: clocks of
//     writers do not matter, those of readers do.
//   - CompareAndSwap. The server writes on condition that the last message of the
//     subject has a certain sequence number. The method reads value and number,
//     compares the value, writes on that number, and begins again if somebody was
//     faster. Most servers have something of that kind: etcd a ModRevision,
//     Consul a ModifyIndex, DynamoDB a condition, memcached a cas.
//
// Registers come from store.RegistersOf, as for any backend without its own.
package natsstore

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/plainware/store"
)

// Store is the store. Closing the connection ends it.
type Store struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	name   string
}

// New returns a store in the stream called name, which it creates if there is
// none. The server must be 2.11 or later.
func New(ctx context.Context, nc *nats.Conn, name string) (*Store, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:              name,
		Subjects:          []string{name + ".*"},
		MaxMsgsPerSubject: 1,
		AllowMsgTTL:       true,
		AllowDirect:       false, // a replica might answer, which lags behind
	})
	if err != nil {
		return nil, err
	}
	return &Store{nc: nc, js: js, stream: stream, name: name}, nil
}

// header is the ttl of a message. One without has none.
const header = "Plainware-Ttl"

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	value, _, err = s.read(ctx, key)
	return value, value != nil, err
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := store.CheckTTL(ttl); err != nil {
		return err
	}
	return s.write(ctx, key, value, ttl)
}

// CompareAndSwap implements [store.Store].
func (s *Store) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	if new == nil {
		ttl = gone
	} else if err := store.CheckTTL(ttl); err != nil {
		return false, err
	}
	for {
		is, last, err := s.read(ctx, key)
		if err != nil || (is == nil) != (old == nil) || !bytes.Equal(is, old) {
			return false, err
		}
		if is == nil && new == nil {
			return true, nil
		}
		err = s.write(ctx, key, new, ttl, jetstream.WithExpectLastSequencePerSubject(last))
		if api, ok := errors.AsType[*jetstream.APIError](err); ok &&
			(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
			continue // perhaps to the same value, so that is no answer yet
		}
		return err == nil, err
	}
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.write(ctx, key, nil, gone)
}

// read returns the value under key, nil if there is none, and the number of the
// last message, 0 if there is none.
func (s *Store) read(ctx context.Context, key string) (value []byte, last uint64, err error) {
	if err := store.CheckKey(key); err != nil {
		return nil, 0, err
	}
	m, err := s.stream.GetLastMsgForSubject(ctx, s.subject(key))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	if h := m.Header.Get(header); h != "" {
		ttl, err := time.ParseDuration(h)
		if err != nil || ttl == gone || !time.Now().Before(m.Time.Add(ttl)) {
			return nil, m.Sequence, err
		}
	}
	return append([]byte{}, m.Data...), m.Sequence, nil
}

// gone is the ttl of a message that says that there is no value any more.
const gone = -time.Nanosecond

// write makes value the last message. What is too large for a connection is no
// message, and a second is the least that the server keeps one for.
func (s *Store) write(ctx context.Context, key string, value []byte, ttl time.Duration, opts ...jetstream.PublishOpt) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if most := s.nc.MaxPayload() - 4096; int64(len(value)) > most {
		return fmt.Errorf("%w (got %d bytes, at most %d)", store.ErrSize, len(value), most)
	}
	m := nats.NewMsg(s.subject(key))
	m.Data = value
	const longest = 100 * 365 * 24 * time.Hour // the server adds it to a clock
	if ttl != 0 && ttl < longest {
		m.Header.Set(header, ttl.String())
		opts = append(opts, jetstream.WithMsgTTL(max(ttl, 0).Truncate(time.Second)+time.Second))
	}
	_, err := s.js.PublishMsg(ctx, m, opts...)
	return err
}

// subject encodes key, since a subject has no spaces and a meaning for dots.
func (s *Store) subject(key string) string {
	return s.name + "." + base64.RawURLEncoding.EncodeToString([]byte(key))
}
