package car

import (
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"external-server/internal/module"
	"external-server/internal/session"
)

// boundModule is one module of the car with its worker.
type boundModule struct {
	number int32
	module module.Module
	worker *module.Worker
	// instance belongs to the worker; it is only asked about its state.
	instance module.Instance

	due       atomic.Bool // the calls are to begin
	forwarded uint64      // of the actor: statuses the worker took
	delivered uint64      // of the worker: statuses it was done with
	event     *Event      // of the worker, see called; nil without observer
}

// begin starts the calls that wait for it.
func (m *boundModule) begin() {
	if m.due.Load() && m.due.CompareAndSwap(true, false) {
		m.worker.Begin()
	}
}

// find returns the module with the number, or nil. A car has few.
func (c *Car) find(number int32) *boundModule {
	for _, m := range c.modules {
		if m.number == number {
			return m
		}
	}
	return nil
}

func (c *Car) position(number int32) int {
	return slices.IndexFunc(c.modules, func(m *boundModule) bool { return m.number == number })
}

// forward queues a status for its module. The session has asked for room in the
// same step, so a refusal is a defect of ours.
func (c *Car) forward(e *session.Effect) {
	m := c.find(e.Device.Module)
	if m != nil {
		// Told before it is queued: the worker may be done with it at once.
		c.tellForwarded(e, m, true)
		ok, begin := m.worker.QueueStatus(e.Device.ForModule(), e.Data, e.Error)
		switch {
		case begin && c.onLink: // after the answer, which it would slow down
			m.due.Store(true)
		case begin:
			m.worker.Begin()
		}
		if ok {
			c.counters.statuses.Add(1)
			return
		}
		m.forwarded--
	}
	c.counters.lost.Add(1)
	c.tellDropped(DropUnqueued)
	c.limit.Log(c.log, slog.LevelError, "an answered status could not be queued and is lost",
		slog.Any("device", e.Device), slog.Uint64("counter", uint64(e.Counter)))
}

// deviceConnected asks the module about a device; the answer is an item of the
// mailbox.
func (c *Car) deviceConnected(e *session.Effect) {
	answer := c.admission(e.Ticket)
	m := c.find(e.Device.Module)
	if m == nil {
		answer(errNoWorker)
		return
	}
	if e.First { // DEV-3
		if n := m.worker.DiscardCommands(); n > 0 {
			c.log.Info("commands fetched while the module had no device were discarded", "module", m.number, "commands", n)
			if c.observing() {
				c.event.Reason, c.event.Module, c.event.Count = DropStale, m.number, n
				c.tell(Dropped, time.Time{})
			}
		}
	}
	if !m.worker.DeviceConnected(e.Device.ForModule(), answer) {
		answer(errNoWorker)
	}
}

// askType asks the module about the type of a device; the answer is an item of the
// mailbox.
func (c *Car) askType(e *session.Effect) {
	answer := c.admission(e.Ticket)
	if m := c.find(e.Device.Module); m == nil || !m.worker.AskType(e.Device.Type, answer) {
		answer(errNoWorker)
	}
}

// errNoWorker refuses what no module can be asked about.
var errNoWorker = errors.New("the module is closed")

// admission returns what brings a module's answer to the session.
func (c *Car) admission(ticket uint64) func(error) {
	return func(err error) {
		c.put(item{kind: session.EventAdmission, ticket: ticket, admitted: err == nil, unsupported: errors.Is(err, module.ErrUnsupportedType)})
	}
}

// moduleView answers the session's questions about the car's modules, on the
// goroutine of the link: nothing here may wait.
type moduleView struct{ c *Car }

func (v moduleView) Configured(n int32) bool { return v.c.find(n) != nil }

func (v moduleView) Recall(n int32, deviceType uint32) (supported, known bool) {
	if m := v.c.find(n); m != nil {
		return module.Recall(m.module, deviceType)
	}
	return false, true
}

func (v moduleView) Position(n int32) int { return v.c.position(n) }

func (v moduleView) Room(n int32) int {
	if m := v.c.find(n); m != nil {
		return m.worker.Free()
	}
	return 0
}
