package store

import (
	"context"
	"fmt"
	"math/bits"
	"time"
)

// Op is one bounded advance of a register, an int64 that the backend keeps
// under Space and Key: read it, see how many steps fit below a ceiling, and add
// them, in one atomic action and one round trip. Token buckets, quotas, leases,
// claims and counters are all this one operation; see the table in the package
// example.
type Op struct {
	// Space and Key together name the register. Each is under the rules of a
	// [Store]'s key, and together they are at most 512 bytes. They are two so
	// that callers need not join them: ("a", "bc") is not ("ab", "c").
	Space, Key string

	// Clock makes Floor and Ceil nanoseconds relative to the store's clock, and
	// the register an instant. Otherwise they are absolute counts.
	Clock bool

	// Floor is what a register never counts as lower than. A register that is
	// absent counts as Floor.
	Floor int64

	// Ceil is what a grant never raises it above. Below Floor, nothing fits.
	Ceil int64

	// Over is by how much other operations may legitimately have raised a clock
	// register above Ceil: debt, paid after the fact. One that is higher than
	// that by more than a second proves that the store's clock went back or the
	// policy shrank, and is healed: it counts as Ceil. So every operation on a
	// clock register gives its true Ceil and Over, a read and a refund too.
	Over int64

	// Step is what one grant adds. It may be negative, to give back, which
	// never lowers the register below Floor.
	Step int64

	// Min and Max bound the grant: as many steps as fit, up to Max, or none if
	// fewer than Min fit. Both zero reads the register. With a Step of zero or
	// less, Max always fit.
	Min, Max int64

	// TTL is how long a count lives, from the operation that creates it; zero
	// is for ever. Later operations do not prolong it. What creates it is the
	// first operation that grants something: one that gives back, or whose Step
	// is zero, too, though it leaves the count at Floor. A clock register needs
	// no TTL: it means nothing any more once now has passed Value - Floor.
	TTL time.Duration
}

// Result is what an [Op] found and did.
type Result struct {
	Value   int64 // the register after the operation; with Clock an instant, ns since 1970 on the store's clock
	Granted int64 // steps
	Now     int64 // the store's clock, ns since 1970
	Expires int64 // ns from Now until the register means nothing; 0 if it means nothing already, or never will
}

// Registers is a [Store] with registers. [RegistersOf] makes one of any Store.
//
// Advance evaluates op while it holds the register, as [Op.Apply] does. An error
// may mean that op was applied, as everywhere.
type Registers interface {
	Advance(ctx context.Context, op Op) (Result, error)
}

// BatchRegisters is a [Store] that does several operations in one round trip.
type BatchRegisters interface {
	Registers

	// AdvanceBatch does ops in their order, each for itself, and sets res,
	// which has the same length. Two may have the same register. With an error
	// any of them may have been applied, and res means nothing. If one is bad,
	// as Check says, none is.
	AdvanceBatch(ctx context.Context, ops []Op, res []Result) error
}

// AtomicRegisters is a [Store] that does several operations or none.
type AtomicRegisters interface {
	Registers

	// AdvanceAll applies ops if each of them can be granted its Min, and
	// reports whether it did. If not, no register is changed except by healing,
	// and res says for each what was found: Value is the register as it stands,
	// and Granted is what the operation could have had, 0 for those that
	// refused. All registers must differ, or the error is [ErrOp]; so it is from
	// a backend that has them on several machines, and nothing is applied.
	AdvanceAll(ctx context.Context, ops []Op, res []Result) (applied bool, err error)
}

// MaxCount bounds what can be computed exactly by every backend, Lua's doubles
// included: the magnitude of Floor, Ceil, Over, of Step times Max, and of a
// count is below it. Of a clock that is 104 days.
const MaxCount = 1 << 53

// HealSlack is how far above Ceil + Over a clock register may stand before it
// is healed. It absorbs operations that overtake each other.
const HealSlack = time.Second

// Check returns an error that is [ErrOp] or [ErrKey] if no backend can do op.
func (op *Op) Check() error {
	if err := op.checkKeys(); err != nil {
		return err
	}
	return op.checkBounds()
}

func (op *Op) checkKeys() error {
	if err := CheckKey(op.Space); err != nil {
		return fmt.Errorf("op.Space: %w", err)
	}
	if err := CheckKey(op.Key); err != nil {
		return fmt.Errorf("op.Key: %w", err)
	}
	if n := len(op.Space) + len(op.Key); n > MaxKey {
		return fmt.Errorf("op.Space and op.Key: %w (got %d bytes together)", ErrKey, n)
	}
	return nil
}

func (op *Op) checkBounds() error {
	hi, lo := bits.Mul64(magnitude(op.Step), magnitude(op.Max))
	switch {
	case op.Min < 0:
		return fmt.Errorf("%w: Min must not be negative (got %d)", ErrOp, op.Min)
	case op.Max < op.Min:
		return fmt.Errorf("%w: Max must not be below Min, %d (got %d)", ErrOp, op.Min, op.Max)
	case op.Over < 0 || op.Over >= MaxCount:
		return fmt.Errorf("%w: Over must be between 0 and 2^53 (got %d)", ErrOp, op.Over)
	case magnitude(op.Floor) >= MaxCount:
		return fmt.Errorf("%w: Floor must be below 2^53 (got %d)", ErrOp, op.Floor)
	case magnitude(op.Ceil) >= MaxCount:
		return fmt.Errorf("%w: Ceil must be below 2^53 (got %d)", ErrOp, op.Ceil)
	case op.Ceil-op.Floor >= MaxCount:
		return fmt.Errorf("%w: Ceil must be less than 2^53 above Floor, %d (got %d)", ErrOp, op.Floor, op.Ceil)
	case op.Max >= MaxCount || hi != 0 || lo >= MaxCount:
		return fmt.Errorf("%w: Max times Step must be below 2^53 (got %d times %d)", ErrOp, op.Max, op.Step)
	case op.TTL < 0 || op.Clock && op.TTL != 0:
		return fmt.Errorf("%w: TTL must not be negative, and zero with Clock (got %v)", ErrOp, op.TTL)
	}
	return nil
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// Apply is the definition of an operation. Given the store's clock and the
// register as it is (live is false if it is absent or has expired), it returns
// the result, and whether Value is to be stored. It is what a backend written
// in Go calls while it holds the register.
//
// Heal says that one clock judges the register always, the store's own.
// Otherwise healing would be unsafe, since a clock that is behind would take
// what another has stored for an error.
//
// In Result, Expires is that of a clock register. For a count it is 0: its
// backend knows when it was created.
func (op *Op) Apply(now, stored int64, live, heal bool) (r Result, store bool) {
	floor, ceil := op.Floor, op.Ceil
	if op.Clock {
		floor, ceil = floor+now, ceil+now
	}
	base := floor
	if live {
		base = max(stored, floor)
	}
	if op.Clock && heal && base > ceil+op.Over+int64(HealSlack) {
		base, store = ceil, true
	}
	n := op.Max
	if room := max(0, ceil-base); op.Step > 0 && room < n*op.Step {
		n = room / op.Step
	}
	if n < op.Min {
		n = 0
	}
	r = Result{Value: max(base+n*op.Step, floor), Granted: n, Now: now}
	if op.Clock {
		r.Expires = max(0, r.Value-floor)
	}
	return r, store || n != 0
}
