package car

import (
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"external-server/internal/module"
	"external-server/internal/session"
	"external-server/internal/session/record"
)

// boundModule is one module of the car with its worker.
type boundModule struct {
	number int32
	module module.Module
	worker *module.Worker
	// instance belongs to the worker; it is only asked about its state.
	instance module.Instance

	awaited bool             // see Binding.Awaited
	session *session.Session // whose statuses it gets

	started chan struct{} // closed when the worker was started, see occupant.start
	closed  chan struct{} // closed when the worker was closed

	due       atomic.Bool   // the calls are to begin
	forwarded uint64        // of the actor: statuses the worker took
	delivered uint64        // of the worker: statuses it was done with
	event     *Event        // of the worker, see called; nil without observer
	record    []byte        // of the worker: for the journal
	batch     [1][]byte     // of the worker: an argument that needs no memory
	confirmed atomic.Uint64 // one more than the number of the last status that was confirmed
}

// bind makes the worker of a module; it is not started.
func (s *Seat) bind(b Binding) *boundModule {
	number := b.Module.Number()
	m := &boundModule{number: number, awaited: b.Awaited, module: b.Module, instance: b.Instance, started: make(chan struct{}), closed: make(chan struct{})}
	worker := module.WorkerOptions{
		Logger:    s.log,
		QueueSize: s.limits.Queue,
		Supports:  b.Module.Supports,
		Permit:    s.opts.Permit,
		Lost:      b.Lost,
		Notify: func() {
			if s.mail.putCommands(number) {
				go s.work(nil, false)
			}
		},
	}
	if j := s.opts.Journal; j != nil {
		name := s.opts.ID.String()
		worker.Confirmed = func(status uint64) {
			m.confirmed.Store(status + 1)
			m.record = record.Begin(m.record[:0], name).Delivered(number, status)
			m.batch[0] = m.record
			j.Append(m.batch[:]...)
		}
	}
	if record := worker.Confirmed; b.Awaited {
		worker.Confirmed = func(status uint64) {
			if record != nil {
				record(status)
			}
			if s.mail.putDelivered(m, status) {
				go s.work(nil, false)
			}
		}
	}
	if j := s.opts.Journal; j != nil {
		// On record before the call: it may end the process (RES-17).
		name := s.opts.ID.String()
		worker.Begins = func(status uint64) func() {
			var done func()
			if s.opts.Alone != nil {
				done = s.opts.Alone()
			}
			j.Append(record.Begin(nil, name).Tried(number, status, 1))
			_ = j.Flush()
			return func() {
				_ = j.Flush() // that it is confirmed
				if done != nil {
					done()
				}
			}
		}
	}
	if o := s.opts.Observer; o != nil {
		m.event = new(Event)
		worker.Called = func(call *module.Call) { m.called(o, call) }
		worker.Stale = func(commands int) { m.wereStale(o, commands) }
	}
	m.worker = module.NewWorker(b.Instance, number, worker)
	return m
}

func (m *boundModule) hasClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

// begin starts the calls that wait for it.
func (m *boundModule) begin() {
	if m.due.Load() && m.due.CompareAndSwap(true, false) {
		m.worker.Begin()
	}
}

// find returns the module with the number, or nil. A car has few.
func (o *occupant) find(number int32) *boundModule {
	for _, m := range o.modules {
		if m.number == number {
			return m
		}
	}
	return nil
}

func (o *occupant) position(number int32) int {
	return slices.IndexFunc(o.modules, func(m *boundModule) bool { return m.number == number })
}

// forward queues a status for its module. The session has asked for room in the
// same step, so a refusal is a defect of ours.
func (o *occupant) forward(e *session.Effect) {
	m := o.find(e.Device.Module)
	if m != nil {
		// Told before it is queued: the worker may be done with it at once.
		o.tellForwarded(e, m, true)
		ok, begin := m.worker.QueueStatus(module.Status{Device: e.Device.ForModule(), Data: e.Data, Error: e.Error, Number: e.Number, Again: e.Again})
		switch {
		case begin && o.onLink: // after the answer, which it would slow down
			m.due.Store(true)
		case begin:
			m.worker.Begin()
		}
		if ok {
			o.counters.statuses.Add(1)
			return
		}
		m.forwarded--
	}
	o.counters.lost.Add(1)
	o.tellDropped(DropUnqueued)
	o.limit.Log(o.log, slog.LevelError, "an answered status could not be queued and is lost",
		slog.Any("device", e.Device), slog.Uint64("counter", uint64(e.Counter)))
}

// deviceConnected asks the module about a device; the answer is an item of the
// mailbox.
func (o *occupant) deviceConnected(e *session.Effect) {
	m := o.find(e.Device.Module)
	answer := o.admission(m, e.Ticket)
	if m == nil {
		answer(errNoWorker)
		return
	}
	if e.First { // DEV-3
		if n := m.worker.DiscardCommands(); n > 0 {
			o.log.Info("commands fetched while the module had no device were discarded", "module", m.number, "commands", n)
			if o.observing() {
				o.event.Reason, o.event.Module, o.event.Count = DropStale, m.number, n
				o.tell(Dropped, time.Time{})
			}
		}
	}
	if !m.worker.DeviceConnected(e.Device.ForModule(), answer) {
		answer(errNoWorker)
	}
}

// askType asks the module about the type of a device; the answer is an item of the
// mailbox.
func (o *occupant) askType(e *session.Effect) {
	m := o.find(e.Device.Module)
	answer := o.admission(m, e.Ticket)
	if m == nil || !m.worker.AskType(e.Device.Type, answer) {
		answer(errNoWorker)
	}
}

// errNoWorker refuses what no module can be asked about.
var errNoWorker = errors.New("the module is closed")

// admission returns what brings a module's answer to the session.
func (s *Seat) admission(m *boundModule, ticket uint64) func(error) {
	return func(err error) {
		s.put(item{kind: session.EventAdmission, by: m, ticket: ticket, admitted: err == nil, unsupported: errors.Is(err, module.ErrUnsupportedType)})
	}
}

// moduleView answers the session's questions about the car's modules, on the
// goroutine of the link: nothing here may wait.
type moduleView struct{ o *occupant }

func (v moduleView) Configured(n int32) bool { return v.o.find(n) != nil }

func (v moduleView) Recall(n int32, deviceType uint32) (supported, known bool) {
	if m := v.o.find(n); m != nil {
		return module.Recall(m.module, deviceType)
	}
	return false, true
}

func (v moduleView) Awaited(n int32) bool {
	m := v.o.find(n)
	return m != nil && m.awaited
}

func (v moduleView) Position(n int32) int { return v.o.position(n) }

func (v moduleView) Room(n int32) int {
	if m := v.o.find(n); m != nil {
		return m.worker.Free()
	}
	return 0
}
