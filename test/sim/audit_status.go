package sim

import (
	"bytes"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// statusLedger is what came in one session in normal communication, and what
// became of it.
type statusLedger struct {
	heard    time.Time // last message of the session (SESS-2)
	held     []fleet.ClientMessage
	based    bool
	cursor   uint32                // everything before was answered or rightly ignored
	expected uint32                // E as it should be: the first counter that did not come
	seen     map[uint32]seenStatus // came and not before cursor
	refused  map[fleet.DeviceID]bool
	doubtful map[uint32]bool // the module did not say in time whether it serves the type
	stepped  bool            // the clock went back: what was first is not the earliest
	noRoom   time.Time       // when a status last had to wait for room
}

type seenStatus struct {
	at     time.Time
	device fleet.Device
	state  fleet.DeviceState
}

func (l *statusLedger) reset() {
	if l.seen == nil {
		l.seen, l.refused, l.doubtful = make(map[uint32]seenStatus), make(map[fleet.DeviceID]bool), make(map[uint32]bool)
	}
	clear(l.seen)
	clear(l.refused)
	clear(l.doubtful)
	*l = statusLedger{seen: l.seen, refused: l.refused, doubtful: l.doubtful, held: l.held[:0]}
}

// hold keeps a status that came before normal communication (REC-28).
func (l *statusLedger) hold(m fleet.ClientMessage) { l.held = append(l.held, m) }

// begin starts normal communication with what was held.
func (l *statusLedger) begin(now time.Time) {
	l.heard = now
	for _, m := range l.held {
		l.receive(m, now)
	}
	l.held = l.held[:0]
}

// receive notes a status of normal communication (STAT-2 to STAT-5, STAT-8).
func (l *statusLedger) receive(m fleet.ClientMessage, now time.Time) {
	if !l.based {
		l.based, l.cursor, l.expected = true, m.Counter, m.Counter
	}
	if int32(m.Counter-l.expected) < 0 {
		return
	}
	if _, twice := l.seen[m.Counter]; twice {
		return
	}
	l.seen[m.Counter] = seenStatus{at: now, device: m.Device, state: m.State}
	for {
		if _, ok := l.seen[l.expected]; !ok {
			return
		}
		l.expected++
	}
}

// leaves tells whether the device that the gateway does not know any more has statuses that wait: it leaves with its
// DISCONNECT, or else with the last of them (CMD-23).
func (l *statusLedger) leaves(id fleet.DeviceID) bool {
	var last uint32
	waits := false
	for counter, st := range l.seen {
		switch {
		case st.device.ID() != id || st.state < fleet.StateConnecting || st.state > fleet.StateDisconnect:
		case st.state == fleet.StateDisconnect:
			return true
		case !waits || int32(counter-last) > 0:
			last, waits = counter, true
		}
	}
	if waits {
		st := l.seen[last]
		st.state = fleet.StateDisconnect
		l.seen[last] = st
	}
	return waits
}

// beyond returns how many statuses wait behind the first missing one, and when
// that was first missed.
func (l *statusLedger) beyond() (n int, since time.Time) {
	if uint32(len(l.seen)) == l.expected-l.cursor {
		return 0, since
	}
	for counter, st := range l.seen {
		if int32(counter-l.expected) > 0 {
			n++
			if since.IsZero() || st.at.Before(since) {
				since = st.at
			}
		}
	}
	return n, since
}

// ignorable tells whether the protocol wants no answer to the status.
func (a *auditor) ignorable(st seenStatus, counter uint32) bool {
	id := st.device.ID()
	switch {
	case a.current.statuses.doubtful[counter]:
		return true
	case a.current.live[id]: // STAT-28
		return st.state < fleet.StateConnecting || st.state > fleet.StateDisconnect
	case !served(st.device), a.current.statuses.refused[id]: // REC-6
		return false
	}
	return st.state != fleet.StateConnecting // STAT-24, STAT-26, STAT-27
}

// skip passes the statuses whose turn it is and that want no answer.
func (a *auditor) skip() {
	l := &a.current.statuses
	for l.cursor != l.expected && a.ignorable(l.seen[l.cursor], l.cursor) {
		delete(l.seen, l.cursor)
		l.cursor++
	}
}

// turn checks that it is the status' turn: in counter order, once, not before
// one that is missing, and none passed over (STAT-4, STAT-6, STAT-8).
func (a *auditor) turn(counter uint32) seenStatus {
	l := &a.current.statuses
	if a.current.loose {
		return l.seen[counter]
	}
	a.skip()
	st, ok := l.seen[counter]
	switch {
	case !l.based || int32(counter-l.cursor) < 0:
		a.fail("STAT-8: status %d is handled again or never came, it is the turn of %d", counter, l.cursor)
	case !ok:
		a.fail("STAT-33: status %d is handled and never came", counter)
	case int32(l.expected-counter) <= 0:
		a.fail("STAT-6: status %d is handled although %d is missing", counter, l.expected)
	case counter != l.cursor:
		a.fail("STAT-4: status %d is handled, it is the turn of %d", counter, l.cursor)
	default:
		delete(l.seen, counter)
		l.cursor++
	}
	return st
}

// checkHandled: what can be handled has been (STAT-4, REC-10). A status may wait
// for the admission of its device and for room in its module's queue.
func (a *auditor) checkHandled() {
	c := &a.current
	l := &c.statuses
	a.checkFirsts()
	if !c.running || len(c.asked) > 0 || c.loose {
		return
	}
	a.skip()
	if l.cursor == l.expected {
		return
	}
	st := l.seen[l.cursor]
	if c.live[st.device.ID()] || st.state == fleet.StateConnecting && a.mayServe(st.device) {
		if a.roomLeft(st.device.Module) <= 0 {
			if a.now.After(l.noRoom) {
				l.noRoom = a.now
			}
			return
		}
	}
	if a.now.Sub(l.noRoom) <= roomRetry || a.overdue {
		return // the core tries again soon, see checkTimes; or as soon as it is woken
	}
	a.fail("REC-10: status %d of %v, state %v, was not handled", l.cursor, st.device, st.state)
}

// mayServe tells whether a module takes the device, or was not asked about its type.
func (a *auditor) mayServe(d fleet.Device) bool {
	return served(d) || configured(d.Module) && d.Role != "" && !a.w.srv.worker(d.Module).knows(d.Type)
}

// roomLeft is the room of a module's queue after this step.
func (a *auditor) roomLeft(module int32) int {
	for i, n := range moduleNumbers {
		if n == module {
			return a.w.srv.workers[i].room() - a.inStep.forwards[i]
		}
	}
	return 1
}

// forwarded checks one status on its way to a module.
func (a *auditor) forwarded(e *session.Effect) {
	c := &a.current
	a.inStep.promised, a.inStep.hasPromised = e.Counter, true
	for i, n := range moduleNumbers {
		if n == e.Device.Module {
			a.inStep.forwards[i]++
		}
	}
	if !c.live[e.Device.ID()] {
		a.fail("REC-8: status %d of %v is forwarded, which is not connected", e.Counter, e.Device)
	}
	if a.undecided(e.Device.ID()) {
		a.fail("STAT-20: status %d of %v is forwarded before its module took the device", e.Counter, e.Device)
	}
	if want := payload(a.sessionNow(), e.Counter, e.Device); !bytes.Equal(e.Data, want) && string(e.Data) != "rogue" {
		a.fail("status %d is forwarded with data %q, want %q", e.Counter, e.Data, want)
	}
	if len(e.Error) > 0 && !bytes.Equal(e.Error[1:], e.Data) {
		a.fail("STAT-32: status %d is forwarded with error %q", e.Counter, e.Error)
	}
	if c.running {
		if st := a.turn(e.Counter); st.state == fleet.StateDisconnect {
			a.inStep.left = e.Device.ID()
		}
		return
	}
	l := c.listedDevice(e.Device.ID())
	if l == nil || l.forwarded || !c.greeted || c.commands > 0 {
		a.fail("DEF-3: first status %d of %v is forwarded out of place", e.Counter, e.Device)
		return
	}
	l.forwarded = true
}

// statusAnswered checks one StatusResponse.
func (a *auditor) statusAnswered(m *fleet.ServerMessage) {
	c := &a.current
	promised := a.inStep.hasPromised
	a.inStep.hasPromised = false
	if promised && a.inStep.promised != m.Counter {
		a.fail("STAT-30: status %d was forwarded, %d is answered", a.inStep.promised, m.Counter)
	}
	if !c.running {
		c.answers++
		if !c.greeted || c.commands > 0 || c.answers > len(c.listed) {
			a.fail("SEQ-35: StatusResponse %d out of place", m.Counter)
		}
		a.firstAnswered(m.Counter, promised)
		return
	}
	if promised || c.loose {
		return
	}
	st := a.turn(m.Counter)
	id := st.device.ID()
	if c.live[id] {
		a.fail("an answer is a promise: status %d of %v was answered and not forwarded", m.Counter, st.device)
	}
	if served(st.device) && !c.statuses.refused[id] {
		a.fail("STAT-24: status %d of %v was answered, which is not connected", m.Counter, st.device)
	}
	if st.state == fleet.StateDisconnect {
		delete(c.statuses.refused, id)
		a.inStep.left = id
	}
}
