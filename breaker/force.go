package breaker

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Mode is what an operator wants of a breaker.
type Mode int

const (
	// Auto leaves it to the breaker.
	Auto Mode = iota

	// ForceOpen refuses all calls.
	ForceOpen

	// ForceClosed lets all calls through, however they end.
	ForceClosed
)

// String returns the name of the constant.
func (m Mode) String() string {
	switch m {
	case Auto:
		return "Auto"
	case ForceOpen:
		return "ForceOpen"
	case ForceClosed:
		return "ForceClosed"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// Override is a decision of an operator.
type Override struct {
	Mode Mode

	// Author is who has decided, for logs and hooks: up to 512 bytes. Required,
	// but for Auto.
	Author string

	// Reason says why, up to 512 bytes.
	Reason string

	// For is how long it holds, up to a year; then the breaker is closed, and
	// goes on by itself. Zero is until it is changed.
	For time.Duration
}

const maxForce = 365 * 24 * time.Hour

// ErrNotShared is returned by [Breaker.Force] when the Store did not take the
// decision in time. It holds in this process, and is brought to the others as
// soon as the Store answers.
var ErrNotShared = errors.New("breaker: not in the store yet")

func (o *Override) check() error {
	var errs []error
	if o.Mode < Auto || o.Mode > ForceClosed {
		errs = append(errs, fmt.Errorf("breaker: Mode: must be Auto, ForceOpen or ForceClosed (got %d)", int(o.Mode)))
	}
	if o.Author == "" && o.Mode != Auto || len(o.Author) > maxText {
		errs = append(errs, fmt.Errorf("breaker: Author: must be 1 to %d bytes (got %d)", maxText, len(o.Author)))
	}
	if len(o.Reason) > maxText {
		errs = append(errs, fmt.Errorf("breaker: Reason: must be at most %d bytes (got %d)", maxText, len(o.Reason)))
	}
	if o.For < 0 || o.For > maxForce {
		errs = append(errs, fmt.Errorf("breaker: For: must be 0 to %v (got %v)", maxForce, o.For))
	}
	return errors.Join(errs...)
}

// Force has the breaker do as an operator says, at once, and in all processes
// that share its Store as soon as they have asked it: within Sync. It survives
// restarts there. The last decision holds; Auto ends it and closes the breaker.
//
// It waits for the Store until ctx ends; the error is [ErrNotShared] then.
func (b *Breaker) Force(ctx context.Context, o Override) error {
	if err := o.check(); err != nil {
		return err
	}
	var f *forcing
	b.mu.Lock()
	if b.share != nil {
		// Under the same lock as the phase, so that the syncer does not undo it.
		f = b.share.force(o)
	}
	b.enter(b.forcedPhase(o), forceReason(o.Mode, o.Reason))
	b.mu.Unlock()
	b.deliver()
	if f == nil {
		return nil
	}
	b.share.kick()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotShared, context.Cause(ctx))
	case <-b.limbo.Done():
		return fmt.Errorf("%w: the breaker was closed", ErrNotShared)
	}
}

func forceReason(m Mode, reason string) string {
	switch {
	case reason != "":
		return reason
	case m == Auto:
		return forceOver
	}
	return forced
}

// forcedPhase is the phase of a decision that begins now.
func (b *Breaker) forcedPhase(o Override) *phase {
	now := b.now()
	ph := &phase{state: Closed, began: now}
	if o.Mode == Auto {
		return ph
	}
	ph.fleet = b.share != nil
	ph.force = &o
	if o.Mode == ForceOpen {
		ph.state = Open
	}
	if o.For > 0 {
		ph.until = now + int64(o.For)
	}
	return ph
}

// forcing is a decision on its way to the store.
type forcing struct {
	Override
	ends time.Time // monotonic; zero is never
	done chan struct{}
}
