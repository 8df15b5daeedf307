// Package order is the one sequence of status counters of a session (STAT-1), and the statuses whose
// turn has not come. Package session decides what becomes of a status whose turn it is.
//
//   - Counters are compared modulo 2^32 (STAT-7).
//   - The turn is that of the status with the counter Expected; each turn comes once, in order (STAT-3, STAT-4).
//   - What waits has counters from Expected on, each once (STAT-8), and is counted in statuses and bytes (REC-22).
//
// Nothing here reads a clock: times come from the caller.
package order

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// maxRedelivered is how far back a status may be redelivered: a broker has no more
// unacknowledged messages of a connection under way (Receive Maximum).
const maxRedelivered = 4096

// Order is that of one session; see New.
type Order struct {
	Started   bool      // a first status set the base (STAT-2)
	First     uint32    // its counter
	Expected  uint32    // E
	MissingBy time.Time // T_msg after E was first missed (STAT-5, DEF-9); zero: nothing missing
	RoomAt    time.Time // when a full module queue is tried again; zero: none
	Withheld  bool      // the status at E waits for room, and was noted
	passed    []uint32  // counters below E whose status was not answered
	ahead     map[uint32]early
	bytes     int // of the statuses in ahead
}

// early is a status whose turn has not come.
type early struct {
	fleet.ClientMessage
	at    time.Time // of its arrival
	again bool      // it comes again if the process ends, and is not recorded
}

// New returns the order of a session that has had no status.
func New() Order { return Order{ahead: make(map[uint32]early)} }

// Reset makes it as New returns it.
func (o *Order) Reset() {
	clear(o.ahead)
	*o = Order{ahead: o.ahead}
}

// Begin makes the counter the first one (STAT-2).
func (o *Order) Begin(counter uint32) { o.Started, o.First, o.Expected = true, counter, counter }

// Put keeps a status until its turn. again: it comes again if the process ends.
func (o *Order) Put(m fleet.ClientMessage, now time.Time, again bool) {
	o.ahead[m.Counter] = early{ClientMessage: m, at: now, again: again}
	o.bytes += m.Size()
}

// Leave makes a connected device leave with its statuses that wait; waits tells whether there are any. It leaves with
// its DISCONNECT, or else the last of these statuses counts as one from now on. changed tells that this status was
// recorded as it was before; a status that comes again if the process ends is not recorded.
func (o *Order) Leave(id fleet.DeviceID) (counter uint32, changed, waits bool) {
	for _, n := range o.Counters() {
		switch e := o.ahead[n]; {
		case e.Device.ID() != id || e.State < fleet.StateConnecting || e.State > fleet.StateDisconnect:
		case e.State == fleet.StateDisconnect:
			return n, false, true
		default:
			counter, waits = n, true
		}
	}
	if !waits {
		return 0, false, false
	}
	e := o.ahead[counter]
	e.State = fleet.StateDisconnect
	o.ahead[counter] = e
	return counter, !e.again, true
}

// Untold returns the lowest counter from Expected on of which the broker was not told: that of a status that has not come,
// or that waits and comes again.
func (o *Order) Untold() uint32 {
	counter := o.Expected
	for {
		if e, waits := o.ahead[counter]; !waits || e.again {
			return counter
		}
		counter++
	}
}

// Len counts the statuses that wait.
func (o *Order) Len() int { return len(o.ahead) }

// Full tells whether there is no place for one more status, with these bounds (REC-22).
func (o *Order) Full(m *fleet.ClientMessage, statuses, bytes int) bool {
	return len(o.ahead) >= statuses || o.bytes+m.Size() > bytes
}

// Has tells whether the status with the counter waits.
func (o *Order) Has(counter uint32) bool {
	_, ok := o.ahead[counter]
	return ok
}

// Waiting returns the status with the counter if it waits.
func (o *Order) Waiting(counter uint32) (m fleet.ClientMessage, ok bool) {
	e, ok := o.ahead[counter]
	return e.ClientMessage, ok
}

// Take takes out m, which waits and whose turn it is.
func (o *Order) Take(m *fleet.ClientMessage) {
	delete(o.ahead, o.Expected)
	o.bytes -= m.Size()
	o.Expected++
	o.MissingBy = time.Time{} // the next missing counter has a limit of its own
}

// Counters returns those of the statuses that wait, in order.
func (o *Order) Counters() []uint32 {
	return slices.SortedFunc(maps.Keys(o.ahead), func(a, b uint32) int { return cmp.Compare(int32(a-o.Expected), int32(b-o.Expected)) })
}

// SeenMissing returns when the gap at E was first seen. Whatever is buffered
// lies beyond the gap, so it is the earliest arrival.
func (o *Order) SeenMissing() time.Time {
	var first time.Time
	for _, m := range o.ahead {
		if first.IsZero() || m.at.Before(first) {
			first = m.at
		}
	}
	return first
}

// SeeNow makes everything that waits look as if it had arrived now: a gap is judged
// from now on.
func (o *Order) SeeNow(now time.Time) {
	for counter, m := range o.ahead {
		m.at = now
		o.ahead[counter] = m
	}
	o.MissingBy = time.Time{}
}

// Pass remembers that a status was handled without an answer.
func (o *Order) Pass(counter uint32) { o.passed = record.AppendPassed(o.passed, counter) }

// Answered tells whether a status below the expected one was answered, as far as
// that matters.
func (o *Order) Answered(counter uint32) bool {
	back := o.Expected - counter
	return back > 0 && back <= maxRedelivered && back <= o.Expected-o.First && !slices.Contains(o.passed, counter)
}

// Acknowledge returns the counters of what would come again and now does not, in order.
func (o *Order) Acknowledge() (counters []uint32) {
	for _, counter := range o.Counters() {
		if m := o.ahead[counter]; m.again {
			m.again = false
			o.ahead[counter] = m
			counters = append(counters, counter)
		}
	}
	return counters
}

// DropAgain drops what comes again.
func (o *Order) DropAgain() {
	for counter, m := range o.ahead {
		if m.again {
			delete(o.ahead, counter)
			o.bytes -= m.Size()
		}
	}
}

// Record writes itself into the record of the session, without what comes again.
func (o *Order) Record(r *record.Session) {
	r.Counting, r.First, r.Expected, r.Passed = o.Started, o.First, o.Expected, slices.Clone(o.passed)
	for _, counter := range o.Counters() {
		if m := o.ahead[counter]; !m.again {
			r.Ahead = append(r.Ahead, m.ClientMessage)
		}
	}
}

// Restore takes over the order of an earlier process.
func (o *Order) Restore(r *record.Session, now time.Time) {
	o.Started, o.First, o.Expected, o.passed = r.Counting, r.First, r.Expected, slices.Clone(r.Passed)
	for i := range r.Ahead {
		o.Put(r.Ahead[i], now, false)
		if !o.Started { // it waits for room, or for the answer of its module
			o.Begin(r.Ahead[i].Counter)
		}
	}
}
