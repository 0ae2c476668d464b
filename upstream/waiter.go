package upstream

// waiter is a request that waits for a place at a back end, or, having one,
// for a connection.
type waiter struct {
	next, prev *waiter
	in         *waiters // the list that it is in; nil once it is served

	ready chan struct{} // closed when conn or err is set
	conn  *conn
	err   *Error
	seq   uint64 // order of arrival
	spent int    // of closedDials, for the connections that it was given before
}

// waiters is a list of them, first come, first served. A request that is
// cancelled leaves from the middle. The connection set's lock guards it.
type waiters struct {
	first, last *waiter
	n           int
}

func (l *waiters) pushBack(w *waiter) {
	w.in, w.prev, w.next = l, l.last, nil
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.n++
}

func (l *waiters) pushFront(w *waiter) {
	w.in, w.prev, w.next = l, nil, l.first
	if l.first != nil {
		l.first.prev = w
	} else {
		l.last = w
	}
	l.first = w
	l.n++
}

func (l *waiters) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.in, w.next, w.prev = nil, nil, nil
	l.n--
}

// serve ends w's wait. It must be in no list.
func (w *waiter) serve(c *conn, err *Error) {
	w.conn, w.err = c, err
	close(w.ready)
}
