package car

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// work handles first, if there is one, and then what is in the mailbox until that
// is empty. The mailbox makes sure that one goroutine at a time does so: a message
// is handled on the goroutine of the link, if no other one is at it, because
// nothing on the way to its answer waits, and handing it over would cost more than
// handling it.
//
// onLink says that it is the link's goroutine, which calls Sent afterwards.
func (o *occupant) work(first *item, onLink bool) {
	defer o.caught()
	o.onLink = onLink
	if first != nil {
		o.configure()
		o.first = *first // not the pointer, which would be on the heap then
		o.handle(first)
		o.first = item{}
	}
	for {
		o.fetchLeft()
		o.arm()
		mail, ok := o.mail.take(o.spare)
		if !ok {
			return
		}
		o.handleMail(mail)
	}
}

// Defect is what was recovered from a panic of the working goroutine.
type Defect struct {
	Value any
	Stack []byte // of the goroutine that met it
	// Again: another one was met shortly before. What the car goes on with may cause it.
	Again bool
}

// defectPause is how long a car must have lived since its last defect for the next one
// to be a first one.
const defectPause = 10 * time.Second

// Error describes the defect.
func (d *Defect) Error() string { return fmt.Sprint(d.Value) }

// caught ends the work of an occupant with a defect for good: the mailbox stays busy,
// and Run returns the defect. The link, and all other cars, go on (DEF-29).
func (o *occupant) caught() {
	p := recover()
	if p == nil {
		return
	}
	now := time.Now()
	o.defect = &Defect{Value: p, Stack: debug.Stack(), Again: !o.failedAt.IsZero() && now.Sub(o.failedAt) < defectPause}
	o.failedAt = now
	o.letGo()
	o.giveBack(o.defect.Again)
	o.log.Error("a car failed by a defect of the server and is started anew; please report this",
		"defect", o.defect.Error(), "where", o.defect.origin())
	close(o.broken)
	select {
	case o.failed <- struct{}{}:
	default: // Run has not looked yet
	}
}

// giveBack lets the next occupant handle what the one that failed had in hand and had not
// answered. What it failed at twice is dropped, and without a journal all of it.
func (o *occupant) giveBack(drop bool) {
	for counter := range o.later {
		o.tellBroker(counter)
	}
	items := o.rest
	if o.first.payload != nil {
		items = []item{o.first}
	}
	if o.opts.Journal == nil { // its session is gone
		o.acknowledge()
		return
	}
	if len(items) > 0 && (drop || o.answered || items[0].kind != session.EventMessage) {
		o.acknowledge()
		items = items[1:]
	}
	o.mail.giveBack(items)
}

// origin names the function and line that panicked, without a stack trace.
func (d *Defect) origin() string {
	lines := strings.Split(string(d.Stack), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "panic(") && i+3 < len(lines) {
			return strings.TrimSpace(lines[i+2]) + " " + strings.TrimSpace(lines[i+3])
		}
	}
	return "unknown"
}

// arm sets the one timer. A deadline that moved into the future is not set
// anew, because it moves with every status: the timer fires, finds nothing due
// and is set again.
func (o *occupant) arm() {
	at := o.session.Deadline()
	if at.IsZero() || (!o.armed.IsZero() && !o.armed.After(at)) {
		return
	}
	o.armed = at
	if o.timer == nil {
		o.timer = time.AfterFunc(time.Until(at), o.fire)
		return
	}
	o.timer.Reset(time.Until(at))
}

func (o *occupant) fire() {
	if o.mail.putDue() { // maybe for the next occupant, which finds nothing due
		o.Seat.work(nil, false)
	}
}

// configure puts new settings in force.
func (o *occupant) configure() {
	if o.options.Load() == nil {
		return
	}
	if opts := o.options.Swap(nil); opts != nil {
		o.session.Configure(*opts)
	}
}

func (o *occupant) handleMail(m mail) {
	o.configure()
	if m.due {
		o.armed = time.Time{}
	}
	for i := range m.items {
		o.rest = m.items[i:]
		o.handle(&m.items[i])
	}
	o.rest = nil
	clear(m.items)
	if len(m.modules) > 1 { // in the order of configuration (SEQ-31)
		slices.SortFunc(m.modules, func(a, b int32) int { return o.position(a) - o.position(b) })
	}
	for _, t := range m.taken {
		if t.by.session == o.session { // numbers of another one begin anew
			o.step(time.Now(), session.Event{Kind: session.EventDelivered, Module: t.by.number, Number: t.number})
		}
	}
	clear(m.taken)
	for _, n := range m.modules {
		o.fetch(n)
	}
	if m.due { // what came before the deadline may have moved it (DEF-27)
		o.step(time.Now(), session.Event{Kind: session.EventDeadline})
	}
	if cap(m.items) > maxIdleItems {
		m.items = nil
	}
	o.spare = m
}

func (o *occupant) handle(it *item) {
	o.ack, o.answered = it.delivery.Ack, false
	o.handleItem(it)
	o.withhold()
	o.acknowledge() // not after a defect: see caught
}

func (o *occupant) handleItem(it *item) {
	ev := session.Event{Kind: it.kind}
	switch it.kind {
	case kindDropped:
		return
	case kindRecord:
		o.journal(nil, nil)
		return
	case session.EventMessage:
		m, err := o.decoder.Client(it.payload)
		if err != nil { // CONN-32
			o.counters.unreadable.Add(1)
			o.tellDropped(DropUnreadable)
			o.limit.Log(o.log, slog.LevelInfo, "message of the gateway cannot be read, ignored", slog.Any("error", err))
			return
		}
		m.Redelivered, m.Received = it.delivery.Duplicate, it.at
		ev.Message, o.answering = m, m.Counter
	case session.EventAdmission:
		if it.by != nil && !slices.Contains(o.modules, it.by) {
			return // of the occupant before
		}
		ev.Ticket, ev.Admitted, ev.Unsupported = it.ticket, it.admitted, it.unsupported
	case session.EventLinkUp:
		o.downsHandled, o.unsent = it.downs, false
		// In a cluster the next owner may not have this journal.
		ev.Kept, ev.Withhold, ev.Down = it.kept, o.opts.Carrier == nil, it.at.Sub(o.reachedAt)
		o.setLink(true, nil)
	case session.EventLinkDown:
		o.downsHandled = it.downs
		clear(o.later) // they mean nothing over another connection
		ev.Kept = it.kept && o.opts.Journal != nil
		o.reachedAt = it.at
		o.setLink(false, it.reason)
	}
	now := time.Now()
	if ev.Kind == session.EventMessage && o.observing() {
		o.now = now
		o.tellMessage(&ev.Message)
	}
	o.step(now, ev)
}

// acknowledge acknowledges the message that was handled, unless its answer did.
func (o *occupant) acknowledge() {
	if o.ack != (link.Ack{}) {
		o.port.Acknowledge(o.ack)
		o.ack = link.Ack{}
	}
}

// withhold keeps the acknowledgement of a status that is answered when all is read that the
// broker held: it leaves with the answer then (RES-3).
func (o *occupant) withhold() {
	counter, yes := o.session.Withheld()
	if _, twice := o.withheld[counter]; !yes || twice || o.ack == (link.Ack{}) {
		return
	}
	if o.withheld == nil {
		o.Seat.withheld = make(map[uint32]link.Ack)
	}
	o.withheld[counter] = o.ack
	o.ack = link.Ack{}
}

// ackWith is the acknowledgement that leaves with a message, zero: none.
func (o *occupant) ackWith(m *fleet.ServerMessage) link.Ack {
	switch {
	case m.Kind != fleet.ServerStatusResponse:
		return link.Ack{}
	case m.Counter == o.answering && o.ack != (link.Ack{}):
		return o.ack
	}
	return o.withheld[m.Counter] // usually nil
}

// letGo acknowledges what was withheld.
func (s *Seat) letGo() {
	for _, ack := range s.withheld {
		s.port.Acknowledge(ack)
	}
	s.withheld = nil
}

// step lets the session handle one event and performs the effects.
func (o *occupant) step(now time.Time, ev session.Event) {
	o.now = now
	o.session.Quiet(!o.observing() && !o.log.Enabled(context.Background(), slog.LevelDebug))
	failed := false
	effects := o.session.Step(now, ev)
	if record := o.session.Journal(); record != nil {
		o.journal(record, effects)
	}
	if o.opts.Carrier != nil {
		o.carry()
	}
	for i := range effects {
		if !o.perform(&effects[i]) {
			failed = true
		}
	}
	if failed && ev.Kind != session.EventPublishFailed {
		o.step(now, session.Event{Kind: session.EventPublishFailed})
	}
	if len(o.withheld) > 0 && !o.session.Withholds() {
		o.letGo()
	}
	o.showPhase()
}

// publish sends a message to the gateway. Over a connection that was lost, although the
// session does not know it yet, nothing leaves: to the session it is as if the message had
// been under way, and a later connection must not carry it.
func (o *occupant) publish(m fleet.ServerMessage, ack link.Ack) (ok bool) {
	if o.downs.Load() != o.downsHandled {
		o.unsent = true
		return true
	}
	if o.port.Publish(protocol.EncodeServer(m), ack) {
		return true
	}
	lost := o.port.Lost()
	o.unsent = o.unsent || lost
	return lost
}

// perform carries out one effect; false means that a message could not be sent.
func (o *occupant) perform(e *session.Effect) bool {
	switch e.Kind {
	case session.EffectPublish:
		ack := o.ackWith(&e.Message)
		if held, ok := o.later[e.Message.Counter]; ok && ack == (link.Ack{}) && e.Message.Kind == fleet.ServerStatusResponse {
			return o.answerLater(e, held)
		}
		ok := o.publish(e.Message, ack)
		o.answered = o.answered || ok && e.Message.Kind == fleet.ServerStatusResponse && e.Message.Counter == o.answering
		if ok && ack != (link.Ack{}) {
			if ack == o.ack {
				o.ack = link.Ack{}
			} else {
				delete(o.withheld, e.Message.Counter)
			}
		}
		o.tellSent(e, ok)
		return ok
	case session.EffectNotifyDisconnect:
		if o.concluding { // the seat knows when it is time
			o.tellLast = true
			break
		}
		o.port.NotifyDisconnect() // the session is over either way
	case session.EffectDiscardOutgoing:
		o.port.DiscardPending()
	case session.EffectDeviceConnected:
		o.deviceConnected(e)
	case session.EffectAskType:
		o.askType(e)
	case session.EffectForward:
		o.forward(e)
	case session.EffectAnswerLater:
		o.holdAck(e.Counter)
	case session.EffectHandled:
		o.tellBroker(e.Counter)
	case session.EffectDeviceDisconnected:
		o.tellDisconnected(e)
		if m := o.find(e.Device.Module); m != nil {
			m.worker.DeviceDisconnected(e.Disconnect, e.Device.ForModule())
		}
	case session.EffectAck:
		if m := o.find(e.Module); m != nil {
			m.worker.CommandAck(fleet.Command{Device: e.Command.Device.ForModule(), Data: e.Command.Data})
		}
	case session.EffectSessionStarted, session.EffectSessionRunning, session.EffectSessionResumed, session.EffectSessionEnded:
		o.sessionChanged(e)
		if e.Kind == session.EffectSessionRunning {
			o.recordPositions()
		}
	case session.EffectNote:
		o.tellNote(e)
		o.note(e)
	}
	return true
}
