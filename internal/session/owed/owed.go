// Package owed holds the answers that a session owes: statuses that were accepted and whose answer has
// not left, because their module has not taken them yet or because an earlier answer is held (RES-26).
// Package session decides what is held and sends what is due.
//
//   - In normal communication answers are held, and leave, in the order of their counters. In the connect
//     sequence they leave in any order (GW-15); they are not "ordered" then.
//   - An answer is due when its module has taken the status, or has let its limit pass.
//   - The broker is told once that a status was handled: with its answer, or earlier.
//   - What another server has to know is a front part of the list without gaps, so the next modules get
//     their statuses in order.
//
// Nothing here reads a clock: times come from the caller.
package owed

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// MaxCarriedBytes bounds the contents of the statuses that another server is told of because their modules
// have not taken them, see Carried.
const MaxCarriedBytes = 64 << 10

// Answer is one that is held. Its message is the status.
type Answer struct {
	fleet.ClientMessage
	Awaited bool      // its module is to take the status first
	Number  uint64    // of the status among those of its module; meaningful if Awaited
	By      time.Time // when it leaves although the module has not taken the status
	TellBy  time.Time // when the broker is told that the status was handled
	Told    bool      // it was told, or is not waiting to be
	taken   bool      // the module has taken the status
	left    bool      // its device has left since, so another server could not tell where to hand it to
}

// Record returns its durable form.
func (a *Answer) Record() record.Owed {
	if !a.Awaited {
		return record.Owed{Counter: a.Counter}
	}
	return record.Owed{Counter: a.Counter, Awaited: true, Module: a.Device.Module, Number: a.Number}
}

// Answers are those of one session, in the order in which they leave. The zero value holds none.
type Answers struct{ held []Answer }

// Len counts the answers.
func (h *Answers) Len() int { return len(h.held) }

// Untold returns the lowest counter of which the broker was not told, if there is any. The answers are ordered.
func (h *Answers) Untold() (counter uint32, ok bool) {
	for i := range h.held {
		if !h.held[i].Told {
			return h.held[i].Counter, true
		}
	}
	return 0, false
}

// Has tells whether the answer to the status with the counter is held.
func (h *Answers) Has(counter uint32) bool {
	return slices.ContainsFunc(h.held, func(a Answer) bool { return a.Counter == counter })
}

// Add holds an answer: behind all of lower counters if ordered, else behind all.
func (h *Answers) Add(a Answer, ordered bool) {
	a.taken = !a.Awaited
	at := len(h.held)
	for at > 0 && ordered && int32(h.held[at-1].Counter-a.Counter) > 0 {
		at--
	}
	h.held = slices.Insert(h.held, at, a)
}

// Delivered takes in that a module was handed its statuses up to the number.
func (h *Answers) Delivered(module int32, number uint64) {
	for i := range h.held {
		if a := &h.held[i]; a.Awaited && a.Device.Module == module && a.Number <= number {
			a.taken = true
		}
	}
}

// TakeDue takes out what is due and gives it to answer, in order. late: its module has let the limit pass.
// known: another server has to know that it has left.
func (h *Answers) TakeDue(now time.Time, ordered bool, answer func(a Answer, late, known bool)) {
	rest, told := h.held[:0], h.told()
	for i, a := range h.held {
		late := !a.taken && !now.Before(a.By)
		if !a.taken && !late || len(rest) > 0 && ordered {
			rest = append(rest, a)
			continue
		}
		answer(a, late, i < told)
	}
	clear(h.held[len(rest):])
	if h.held = rest; len(rest) == 0 {
		h.held = nil
	}
}

// Tell gives to handled the counters of the statuses of which it is time to tell the broker.
func (h *Answers) Tell(now time.Time, handled func(counter uint32)) {
	for i := range h.held {
		if a := &h.held[i]; !a.Told && !now.Before(a.TellBy) {
			a.Told = true
			handled(a.Counter)
		}
	}
}

// Forget drops all, and gives to handled the counters of which the broker was not told.
func (h *Answers) Forget(handled func(counter uint32)) {
	for i := range h.held {
		if !h.held[i].Told {
			handled(h.held[i].Counter)
		}
	}
	h.held = nil
}

// ToldAll notes that the connection on which the statuses came is gone, so nothing more can be
// told over it. What the broker was not told of comes again.
func (h *Answers) ToldAll() {
	for i := range h.held {
		h.held[i].Told = true
	}
}

// Restart gives all answers the same limit.
func (h *Answers) Restart(by time.Time) {
	for i := range h.held {
		h.held[i].By = by
	}
}

// Deadline gives to take the times when something is due; answers: some may leave.
func (h *Answers) Deadline(ordered, answers bool, take func(time.Time)) {
	for i := range h.held {
		a := &h.held[i]
		if !a.Told {
			take(a.TellBy)
		}
		if !a.taken && answers && (i == 0 || !ordered) {
			take(a.By)
		}
	}
}

// DeviceLeft marks the statuses that the device brought and that its module has not taken.
func (h *Answers) DeviceLeft(id fleet.DeviceID) {
	for i := range h.held {
		if a := &h.held[i]; a.Awaited && !a.taken && a.Device.ID() == id {
			a.left = true
		}
	}
}

// Restore takes over the held answers of an earlier process. What is not left was taken by its
// module.
func (h *Answers) Restore(r *record.Resumption) {
	for _, o := range r.Record.Owed {
		a := Answer{ClientMessage: fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: r.Record.ID, Counter: o.Counter}, Awaited: o.Awaited, Number: o.Number, Told: true, taken: true}
		a.Device.Module = o.Module
		i := slices.IndexFunc(r.Left, func(l record.Left) bool { return o.Awaited && l.Device.Module == o.Module && l.Number == o.Number })
		if i >= 0 {
			l := &r.Left[i]
			a.taken = false
			a.Device, a.Data, a.Error = l.Device, l.Data, l.Error
		}
		h.held = append(h.held, a)
	}
}

// Records returns the durable form of all.
func (h *Answers) Records() (out []record.Owed) {
	for i := range h.held {
		out = append(out, h.held[i].Record())
	}
	return out
}

// told is how many of the answers, from the first on, another server has to know. What the broker was
// not told of comes again and needs no record, unless its device has left, or it stands in front of one that is
// recorded: the modules of the next server get their statuses in order.
func (h *Answers) told() int {
	n := len(h.held)
	for n > 0 && !h.held[n-1].Told && !h.held[n-1].left {
		n--
	}
	return n
}

// Carried returns the answers that another server would owe, and the statuses of those whose modules have
// not taken them. It ends where these become too large: without its contents a status would count as taken.
func (h *Answers) Carried() (out []record.Owed, left []record.Left) {
	bytes := 0
	for i := range h.held[:h.told()] {
		a := &h.held[i]
		waits := a.Awaited && !a.taken
		if waits {
			bytes += a.Size()
		}
		if bytes > MaxCarriedBytes {
			break
		}
		out = append(out, a.Record())
		if waits {
			left = append(left, record.Left{Device: a.Device, Data: a.Data, Error: a.Error, Number: a.Number})
		}
	}
	return out, left
}
