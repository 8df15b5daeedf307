package session

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/commands"
	"external-server/internal/session/record"
)

// Limits of a recovery.
const (
	// promptly is how long a session may have been out of reach for what the broker
	// held to be answered as it comes. After a longer pause a gateway may have given
	// up, which a Connect further back among the messages says; so all are read first (RES-6).
	promptly = 5 * time.Second
	// responseComes is how long a gateway that was heard again, and whose messages were
	// all read, may take to respond to a command that reached it: without response after
	// that, the command did not (RES-10).
	responseComes = time.Second
)

// recovery is what a session in normal communication knows while it is out of
// reach, and until it has found out what its gateway has and has not. It begins with
// the loss of the link, or in another process with EventResume.
//
//	unreachable --EventLinkUp, continued--> reading --EventBacklogRead--> listening
//	listening --first message, commands settled--> (over)
//
// The order of the bytes tells what reached the broker: it has read a part of what was
// written, from the beginning. For each status it was told "handled", and directly
// behind that the answer, or the answer later. So a status that comes again was not answered, whatever
// this server has decided, and neither did anything leave that is behind its "handled" (RES-9).
type recovery struct {
	reachable bool // the link is up again and the broker has kept what came
	read      bool // all that the broker held has come
	heard     bool // a message of the session has come: the gateway still believes in it

	base    uint32          // the status that was expected when the link was lost
	again   map[uint32]bool // redelivered statuses below base whose answers are sent again
	answers []fleet.ClientMessage
	leaving []fleet.DeviceID // devices that leave when those have been handed over

	arrival commands.Arrival
	carried bool      // see Resumption.Hint
	decide  time.Time // when commands without response count as lost; zero: not yet known
}

// leftover announces the devices of statuses that no module has confirmed, hands
// these over and, where the session does not go on, takes the devices back.
func (s *Session) leftover(left []record.Left) {
	var gone []fleet.Device
	for i := range left {
		d := left[i].Device
		if dev := s.find(d.ID()); dev != nil && dev.supported || slices.ContainsFunc(gone, func(g fleet.Device) bool { return g.ID() == d.ID() }) {
			continue
		}
		gone = append(gone, d)
		s.tickets++
		s.emit(Effect{Kind: EffectDeviceConnected, Device: d, Ticket: s.tickets})
	}
	for i := range left {
		l := &left[i]
		s.emit(Effect{Kind: EffectForward, Device: l.Device, Data: l.Data, Error: l.Error, Number: l.Number, Again: true})
	}
	for _, d := range gone {
		s.emit(Effect{Kind: EffectDeviceDisconnected, Device: d, Disconnect: fleet.DisconnectTimeout})
	}
}

// resume takes over what a journal knows. It must be the first event of a Session.
func (s *Session) resume(r *record.Resumption) {
	for _, n := range r.Numbers {
		*s.number(n.Module) = n.Next
	}
	for _, p := range r.Positions {
		s.SetPosition(p.Module, p.Bytes)
		if r.Hint != nil {
			s.recordPosition(p.Module, p.Bytes)
		}
	}
	s.sent.Next = r.Next
	if rec := r.Record; rec != nil {
		s.restore(rec)
		s.owed.Restore(r)
		s.lookForBroker(commands.Arrival{Settled: rec.Settled, Limbo: rec.Recovering && !r.Local, Local: r.Local}, r.Hint != nil)
		if r.Hint != nil {
			s.hint = s.order.Guess(*r.Hint)
			s.recordSession() // this server's journal is another one
			s.recordLeft(r.Left)
		}
		s.recordRecovery(false)
		s.sessionBy = s.now.Add(s.opts.SessionTimeout)
	}
	s.leftover(r.Left)
}

// restore puts the session into the state of the record and announces its devices
// to their modules, which have new contexts. Nothing that they have fetched is stale
// (DEV-3 was done when the devices came, RES-13).
func (s *Session) restore(r *record.Session) {
	s.id, s.phase, s.withModule, s.rejoin = r.ID, PhaseRunning, r.WithModule, true
	for _, d := range r.Devices {
		dev := &device{Device: d.Device, listed: true, first: true}
		why, certain := s.unservable(d.Device)
		s.anew = s.anew || certain && d.Supported != (why == "")
		if d.Supported && why == "" {
			s.tickets++
			dev.supported, dev.started, dev.rebound, dev.ticket = true, true, true, s.tickets
			s.emit(Effect{Kind: EffectDeviceConnected, Device: d.Device, Ticket: dev.ticket})
		}
		s.devices = append(s.devices, dev)
	}
	s.withModule = s.withModule && slices.ContainsFunc(s.devices, func(d *device) bool { return d.supported })
	s.order.Restore(r, s.now)
	s.sent.Restore(r.Next, r.Commands, s.now, s.now.Add(s.opts.MessageTimeout))
}

// linkUp says whether the broker has kept what came for the car meanwhile.
func (s *Session) linkUp(kept, withhold bool, down time.Duration) {
	r := s.recovery
	s.backlog, s.late, s.connectIn = kept, kept && (down >= promptly || s.hint != nil || r != nil && r.carried), nil
	switch {
	case r == nil:
	case !kept:
		s.end(ReasonNotContinued, false)
	default:
		r.reachable = true
		s.withholds = withhold && s.late && s.hint == nil && !r.carried
		s.sessionBy = s.now.Add(s.opts.SessionTimeout)
		s.emit(Effect{Kind: EffectSessionResumed, SessionID: s.id, Down: down})
	}
}

// linkLost ends the session, or suspends it when the broker keeps what comes. A
// connect sequence is not suspended: its gateway gives up after 5 s (GW-1, RES-4, RES-5).
func (s *Session) linkLost(kept, settled bool) {
	s.backlog, s.late, s.connectIn = false, false, nil
	if !kept || s.phase != PhaseRunning {
		s.end(ReasonLinkDown, false)
		return
	}
	s.dropWithheld()
	s.owed.ToldAll()
	before := s.recovery
	if settled && s.prefix > 0 {
		s.journal = s.journal.Settled()
	}
	arrival := commands.Arrival{Settled: settled, Limbo: before != nil}
	if before != nil && before.arrival.Certain() && before.base == s.order.Expected { // nothing was sent since
		arrival.Settled, arrival.Limbo = true, false
	}
	s.lookForBroker(arrival, before != nil && before.carried && !before.read)
	s.recordRecovery(false)
	s.sessionBy = s.now.Add(s.opts.SessionTimeout)
}

// lookForBroker begins a recovery.
func (s *Session) lookForBroker(arrival commands.Arrival, carried bool) {
	arrival.LookBack(s.order.Started, s.untold())
	s.recovery = &recovery{base: s.order.Expected, arrival: arrival, carried: carried}
}

// connectLater keeps the newest Connect until all that the broker held was read. It
// voids all that came before it: the gateway has no other session any more (RES-7).
func (s *Session) connectLater(m fleet.ClientMessage) {
	if s.phase != PhaseWaiting && m.SessionID == s.id {
		s.note(Info, NoteRedelivered, fleet.Device{}, 0)
		return
	}
	s.end(ReasonReplaced, false)
	s.connectIn = &m
}

// certain tells whether statuses may be accepted: always, but for a session whose
// gateway is out of reach or was not heard yet.
func (s *Session) certain() bool {
	r := s.recovery
	return r == nil || r.reachable && r.heard && (r.read || !s.late)
}

// joins tells whether a status of an unknown device makes it a device of the session
// (STAT-20). In a resumed session any first status does, because the device may have
// joined in the moment in which the process ended (RES-12).
func (s *Session) joins(m fleet.ClientMessage) bool {
	return m.State == fleet.StateConnecting ||
		s.rejoin && m.State == fleet.StateRunning && !slices.Contains(s.left, m.Device.ID())
}

// superseded tells whether a status of another session proves that the gateway has given
// up the one that is to be resumed: it was served meanwhile by a process that did not
// write into the journal. What the broker held says nothing, it may be older.
func (s *Session) superseded(m fleet.ClientMessage) bool {
	r := s.recovery
	return r != nil && r.reachable && r.read && !r.heard && m.Kind == fleet.ClientStatus
}

// recovered handles a message of a session that is not certain of its gateway yet.
func (s *Session) recovered(m fleet.ClientMessage) {
	r := s.recovery
	r.heard = true
	s.sessionBy = s.now.Add(s.opts.SessionTimeout)
	if m.Kind == fleet.ClientStatus && !r.read {
		r.arrival.Sees(m.Counter)
	}
	switch {
	case m.Kind != fleet.ClientStatus:
		s.commandResponse(m)
	case s.order.Started && int32(m.Counter-s.order.Expected) < 0:
		s.redelivered(m)
	case !s.order.Started && m.State == fleet.StateConnecting && s.find(m.Device.ID()) != nil:
		// It is of the connect sequence, whose answers the gateway has: the broker was set back (RES-9).
		s.note(Info, NoteStatusLow, m.Device, m.Counter) // STAT-3
	case s.late && !r.read:
		s.keepAhead(m)
	default:
		s.status(m)
	}
	if s.recovery == r {
		s.settle()
	}
}

// redelivered answers a status that was accepted and whose answer has not left. It
// is not forwarded again (RES-9).
func (s *Session) redelivered(m fleet.ClientMessage) {
	r := s.recovery
	if s.owed.Has(m.Counter) { // it is answered when its turn has come
		s.note(Debug, NoteStatusRedelivered, m.Device, m.Counter)
		return
	}
	if int32(m.Counter-r.base) >= 0 || !s.order.Answered(m.Counter) || r.again[m.Counter] || r.arrival.Settled || r.read {
		s.note(Info, NoteStatusLow, m.Device, m.Counter) // STAT-3
		return
	}
	if r.again == nil {
		r.again = make(map[uint32]bool)
	}
	r.again[m.Counter] = true
	s.note(Debug, NoteStatusRedelivered, m.Device, m.Counter)
	if s.late {
		if !r.carried {
			m.Data, m.Error = nil, nil
		}
		r.answers = append(r.answers, m)
		s.withhold(m.Counter)
		return
	}
	s.answer(m)
}

// leavesAfter tells whether statuses of the device come that are handed over when all was read: it leaves after them.
func (r *recovery) leavesAfter(id fleet.DeviceID) bool {
	if !r.carried || !slices.ContainsFunc(r.answers, func(m fleet.ClientMessage) bool { return m.Device.ID() == id }) {
		return false
	}
	r.leaving = append(r.leaving, id)
	return true
}

// keepAhead keeps a status until all that the broker held was read.
func (s *Session) keepAhead(m fleet.ClientMessage) {
	o := &s.order
	s.note(Debug, NoteStatusReceived, m.Device, m.Counter)
	switch {
	case s.hint != nil:
		s.hint.See(m.Counter)
	case !o.Started:
		s.firstCounts(m.Counter)
	}
	switch {
	case o.Has(m.Counter): // of an earlier process, and acknowledged, or twice
		s.note(Info, NoteStatusDuplicate, m.Device, m.Counter)
	case o.Full(&m, s.opts.MaxAhead, s.opts.MaxAheadBytes):
		s.end(ReasonTooManyAhead, true)
	default:
		s.putAside(m)
	}
}

// backlogRead says that all has come that the broker held.
func (s *Session) backlogRead() {
	s.backlog = false
	if m := s.connectIn; m != nil {
		s.connectIn = nil
		s.connect(*m)
		return
	}
	r := s.recovery
	if r == nil || !r.reachable {
		return
	}
	r.read = true
	for _, m := range r.answers {
		switch {
		case !r.carried:
			s.answer(m)
		case !s.handOver(m):
			return
		}
	}
	r.answers = nil
	for _, id := range r.leaving {
		if dev := s.find(id); dev != nil && dev.supported {
			s.disconnect(dev)
		}
	}
	if s.hint != nil && s.hint.Come {
		if m, ok := s.order.Waiting(s.hint.Lowest); ok && !s.adopt(m) {
			return
		}
		s.drain()
	}
	if s.recovery == r {
		s.settle()
	}
}

// settle ends the recovery as soon as the gateway was heard and it is certain which
// commands have reached it. Nothing is sent to a gateway before its first message:
// what was meant for an earlier session it would take for its own (GW-50, RES-8).
func (s *Session) settle() {
	r := s.recovery
	if !r.read || !r.heard {
		return
	}
	lost, certain := s.sent.Lost(&r.arrival)
	if !certain {
		if r.decide.IsZero() {
			r.decide = s.now.Add(responseComes)
		}
		if s.now.Before(r.decide) {
			return
		}
	}
	s.recovery = nil
	s.recordRecovery(true)
	s.owed.Restart(s.now.Add(s.opts.DeliverySoon)) // their gateway has waited before
	waiting := s.sent.Waiting()
	s.recordBefore(lost, s.untold())
	for i := range waiting { // their limits begin anew (RES-11)
		c := &waiting[i]
		c.By = s.now.Add(s.opts.MessageTimeout)
		if i < lost || c.Responded {
			continue
		}
		counter := s.sent.Counter(i)
		wire := c.Command.Device
		if dev := s.find(wire.ID()); dev != nil && c.Fetched {
			wire = dev.Device
		}
		s.note(Debug, NoteCommandRepeated, wire, counter)
		s.publish(fleet.ServerMessage{Kind: fleet.ServerCommand, Counter: counter, Device: wire, Data: c.Command.Data})
	}
	s.order.SeeNow(s.now) // a gap is judged from now on (RES-11)
	s.answerOwed()
	s.drain()
	if s.phase == PhaseRunning && !s.order.MissingBy.IsZero() && s.recovery == nil {
		s.note(Warning, NoteBacklogGap, fleet.Device{}, s.order.Expected)
	}
	s.behind, s.behindKnown = s.order.Expected, true
	if s.anew {
		s.connectAnew()
	}
	s.sendPending()
	s.endWithoutDevices()
}

// recoveryDeadline is Deadline during a recovery.
func (s *Session) recoveryDeadline(take func(time.Time)) {
	take(s.sessionBy)
	take(s.recovery.decide)
	take(s.admitBy)
	if !s.late || s.recovery.read {
		take(s.order.RoomAt)
	}
}

// recoveryDue handles a deadline during a recovery.
func (s *Session) recoveryDue(due func(time.Time) bool) {
	r := s.recovery
	switch {
	case due(s.sessionBy) && !r.reachable:
		s.end(ReasonLinkDown, false)
	case due(s.sessionBy):
		s.end(ReasonSessionTimeout, true)
	default:
		if due(s.admitBy) {
			s.decideSlowAdmissions()
		}
		if s.recovery == r && due(s.order.RoomAt) {
			s.drain()
		}
		if s.recovery == r && due(r.decide) {
			s.settle()
		}
	}
}
