package store

import "time"

// GiveBack is Op.giveBack for a call that began age ago.
func GiveBack(op Op, n int64, r Result, age time.Duration) (back Op, any bool) {
	return op.giveBack(n, r, time.Now().Add(-age))
}

// EmulateAt returns an emulation of registers whose process has the clock now.
func EmulateAt(s Store, now func() int64) Registers {
	e := newEmulation(s)
	e.now = now
	return e
}

// Lanes returns how many registers of an emulation have calls on their way.
func Lanes(r Registers) int {
	e := r.(*emulation)
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.lanes)
}

// RegisterKey is the key of an emulated register.
var RegisterKey = registerKey
