// Package inflight lists what one side of a connection still has to answer: the broker the messages (Messages) and
// the requests (Requests) that were sent to it, the cars what they were given (Owed).
//
// Messages and requests use ranges of packet identifiers of their own, so that an answer can belong to
// one of them only, and each identifier is in use once. The connection's lock guards all of it; time comes in with each call.
package inflight

import (
	"fmt"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt/wire"
)

const (
	// MaxMessages bounds the messages that may be unacknowledged.
	MaxMessages  = 0xEFFF
	firstRequest = MaxMessages + 1
)

// Messages are those that the broker has not acknowledged.
type Messages struct {
	used     [(MaxMessages + 64) / 64]uint64
	n        int
	last     uint16
	progress time.Time // since when no acknowledgement has come; zero: since the next look
}

// Clear forgets all; identifiers go on where they were.
func (m *Messages) Clear() { *m = Messages{last: m.last} }

// Len returns how many there are.
func (m *Messages) Len() int { return m.n }

// Last returns the identifier that was taken last.
func (m *Messages) Last() uint16 { return m.last }

// Take returns an identifier that is not in use. There is one, because the caller keeps to a
// window that is at most MaxMessages.
func (m *Messages) Take() uint16 {
	for {
		if m.last++; m.last > MaxMessages {
			m.last = 1
		}
		if m.used[m.last/64]&(1<<(m.last%64)) == 0 {
			break
		}
	}
	m.used[m.last/64] |= 1 << (m.last % 64)
	if m.n++; m.n == 1 {
		m.progress = time.Time{}
	}
	return m.last
}

// Release handles an acknowledgement; one that is not awaited is ignored.
func (m *Messages) Release(id uint16) {
	if id > MaxMessages || m.used[id/64]&(1<<(id%64)) == 0 {
		return
	}
	m.used[id/64] &^= 1 << (id % 64)
	m.n--
	m.progress = time.Time{}
}

// Check returns an error when there are messages, and none was acknowledged for longer than patience.
func (m *Messages) Check(now time.Time, patience time.Duration) error {
	if m.progress.IsZero() {
		m.progress = now
	}
	if m.n > 0 && now.Sub(m.progress) > patience {
		return fmt.Errorf("%d messages are not acknowledged, none for %v", m.n, patience)
	}
	return nil
}

// Requests are the SUBSCRIBE and UNSUBSCRIBE packets that the broker has not answered. R is
// what the caller wants to know of one.
type Requests[R any] struct {
	open    map[uint16]request[R]
	last    uint16
	initial int
}

type request[R any] struct {
	of      R
	topics  int // of SUBSCRIBE, 0: UNSUBSCRIBE
	initial bool
	sent    time.Time
}

// Clear forgets all; identifiers go on where they were.
func (r *Requests[R]) Clear() { *r = Requests[R]{open: make(map[uint16]request[R]), last: r.last} }

// Restored tells whether all initial requests are answered.
func (r *Requests[R]) Restored() bool { return r.initial == 0 }

// Add returns the packet identifier of a request: SUBSCRIBE to so many topics, UNSUBSCRIBE if 0. There are 4096
// and each stands for up to 200 topics; a broker that leaves so many unanswered has been given up by then.
func (r *Requests[R]) Add(of R, topics int, initial bool, now time.Time) uint16 {
	for range 1 << 12 {
		if r.last++; r.last < firstRequest {
			r.last = firstRequest
		}
		if _, used := r.open[r.last]; !used {
			break
		}
	}
	if initial {
		r.initial++
	}
	r.open[r.last] = request[R]{of, topics, initial, now}
	return r.last
}

// Answer takes the request off that SUBACK or UNSUBACK answers, with one result for each topic of SUBSCRIBE.
// Initial says that it was one of the initial ones.
func (r *Requests[R]) Answer(a *wire.Packet) (of R, initial bool, err error) {
	q, ok := r.open[a.ID]
	if !ok {
		return of, false, fmt.Errorf("%w: %v for a packet that was not sent", wire.ErrMalformed, a.Type)
	}
	if (a.Type == wire.Suback) != (q.topics > 0) || a.Type == wire.Suback && len(a.Codes) != q.topics {
		return of, false, fmt.Errorf("%w: %v with %d results for %d topics", wire.ErrMalformed, a.Type, len(a.Codes), q.topics)
	}
	if a.Type == wire.Suback {
		for _, code := range a.Codes {
			if code > 2 && code < wire.SubackRefused { // some brokers use the codes of MQTT 5
				return of, false, fmt.Errorf("%w: SUBACK with result %#x", wire.ErrMalformed, code)
			}
		}
	}
	delete(r.open, a.ID)
	if q.initial {
		r.initial--
	}
	return q.of, q.initial, nil
}

// Check returns an error when one was not answered for longer than patience.
func (r *Requests[R]) Check(now time.Time, patience time.Duration) error {
	for _, q := range r.open {
		if now.Sub(q.sent) > patience {
			return fmt.Errorf("a subscription was not answered within %v", patience)
		}
	}
	return nil
}

// Owed lists by packet identifier what has to be acknowledged to the broker and which car, a P, has to say when. A
// token of an earlier connection or one that is used twice does nothing, and a car that leaves owes nothing.
type Owed[P comparable] struct {
	connection uint32
	by         map[uint16]P
}

// Begin forgets all and begins with a connection, whose number is not 0.
func (o *Owed[P]) Begin(connection uint32) { *o = Owed[P]{connection, make(map[uint16]P)} }

// Clear forgets all.
func (o *Owed[P]) Clear() { clear(o.by) }

// Len returns how many there are.
func (o *Owed[P]) Len() int { return len(o.by) }

// Add notes a packet and returns the token with which the car settles it.
func (o *Owed[P]) Add(packet uint16, by P) link.Ack {
	o.by[packet] = by
	return link.Ack{Connection: o.connection, Packet: packet}
}

// Settle takes a packet off the list, for the caller to acknowledge. False: it was not on it.
func (o *Owed[P]) Settle(a link.Ack, by P) bool {
	if a.Connection == 0 || a.Connection != o.connection || o.by[a.Packet] != by {
		return false
	}
	delete(o.by, a.Packet)
	return true
}

// SettleAll takes all packets of a car off the list and gives them to acknowledge.
func (o *Owed[P]) SettleAll(by P, acknowledge func(packet uint16)) {
	for packet, other := range o.by {
		if other == by {
			delete(o.by, packet)
			acknowledge(packet)
		}
	}
}
