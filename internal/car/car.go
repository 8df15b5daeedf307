// Package car runs one car: the goroutine that owns its session, performs the
// session's effects on the link and on the modules, and keeps its one timer. It
// decides nothing about the protocol; that is package session.
//
// It may import session, link, module, protocol and logging; it knows no
// transport and no kind of module.
package car

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/logging"
	"external-server/internal/module"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// Binding is one module of a car. The order of a car's bindings is the order of
// its modules (CFG-13).
type Binding struct {
	Module   module.Module
	Instance module.Instance // owned by the Car from New on
}

// Options of New.
type Options struct {
	ID      fleet.CarID
	Limits  Limits
	Modules []Binding
	// MailboxSize bounds the messages of the gateway that wait for the car's
	// goroutine; zero means 4096.
	MailboxSize int
	// QueueSize bounds the statuses that wait per module; zero means 1000.
	QueueSize int
	// StopTimeout bounds the delivery of what was accepted and the end of the
	// modules at stop; zero means 3 s (CLI-24).
	StopTimeout time.Duration
	Logger      *slog.Logger
}

// Car is the actor of one car. It implements link.Receiver.
type Car struct {
	opts       Options
	log        *slog.Logger
	limit      logging.Limiter
	mail       *mailbox
	session    *session.Session
	modules    []*boundModule
	port       link.Port
	limits     atomic.Pointer[Limits]
	rate       bucket
	lost       atomic.Uint64 // messages dropped because the mailbox was full
	limited    atomic.Uint64 // messages dropped because the gateway sends too many
	statuses   atomic.Uint64
	unreadable atomic.Uint64

	// Of the actor's goroutine only.
	timer               *time.Timer
	armed               time.Time
	modulesWithCommands []int32
	spare               []item
	since               time.Time // start of the current session

	mu   sync.Mutex
	view Snapshot
}

type boundModule struct {
	number int32
	module module.Module
	worker *module.Worker
}

// New returns a car that does nothing until Attach and Run are called.
func New(opts Options) (*Car, error) {
	if opts.MailboxSize <= 0 {
		opts.MailboxSize = 4096
	}
	if opts.StopTimeout <= 0 {
		opts.StopTimeout = 3 * time.Second
	}
	if opts.Logger == nil {
		return nil, errors.New("car: a logger is needed")
	}
	c := &Car{
		opts: opts,
		log:  opts.Logger.With(logging.ComponentKey, logging.ComponentCar, "car", opts.ID.Car),
		mail: newMailbox(opts.MailboxSize),
	}
	for _, b := range opts.Modules {
		number := b.Module.Number()
		c.modules = append(c.modules, &boundModule{
			number: number,
			module: b.Module,
			worker: module.NewWorker(b.Instance, number, module.WorkerOptions{
				Logger:    c.log,
				QueueSize: opts.QueueSize,
				Notify:    func() { c.mail.putCommands(number) },
			}),
		})
	}
	limits := opts.Limits.withDefaults()
	c.limits.Store(&limits)
	c.session = session.New(limits.Session, moduleView{c})
	c.view = Snapshot{ID: opts.ID, Ended: make(map[session.Reason]uint64)}
	return c, nil
}

// ID returns the name of the car.
func (c *Car) ID() fleet.CarID { return c.opts.ID }

// Attach connects the car to the link; call it once, before Run.
func (c *Car) Attach(l link.Link) error {
	port, err := l.Attach(c.opts.ID, c)
	if err != nil {
		return fmt.Errorf("car %v: %w", c.opts.ID, err)
	}
	c.port = port
	return nil
}

// Message implements link.Receiver.
func (c *Car) Message(payload []byte, duplicate bool) {
	if l := c.limits.Load(); l.MessagesPerSec > 0 && !c.rate.take(time.Now(), l.MessagesPerSec, l.MessageBurst) {
		if c.limited.Add(1) == 1 {
			c.log.Warn("the gateway sends more messages than limits.messages_per_second allows, dropping; further ones are only counted",
				"limit", l.MessagesPerSec)
		}
		return
	}
	if !c.mail.put(item{kind: session.EventMessage, payload: payload, dup: duplicate}) {
		if c.lost.Add(1) == 1 {
			c.log.Warn("messages arrive faster than they are handled, dropping; further ones are only counted")
		}
	}
}

// LinkUp implements link.Receiver.
func (c *Car) LinkUp() { c.mail.put(item{kind: session.EventLinkUp}) }

// LinkDown implements link.Receiver.
func (c *Car) LinkDown(reason error) { c.mail.put(item{kind: session.EventLinkDown, err: reason}) }

// Run serves the car until ctx ends, then ends its session (CLI-24), lets the
// modules take what was accepted and closes their instances, all within
// StopTimeout. It returns what could not be delivered or closed in time.
func (c *Car) Run(ctx context.Context) error {
	workers, stopWorkers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorkers()
	var wg sync.WaitGroup
	for _, m := range c.modules {
		wg.Go(func() { m.worker.Run(workers) })
	}
	c.timer = time.NewTimer(time.Hour)
	defer c.timer.Stop()
	for ctx.Err() == nil {
		c.arm()
		select {
		case <-ctx.Done():
		case <-c.mail.wake:
			c.handleMail()
		case <-c.timer.C:
			c.armed = time.Time{}
			c.handleMail() // what came before the deadline may move it (DEF-27)
			c.step(session.Event{Kind: session.EventDeadline})
		}
	}
	c.step(session.Event{Kind: session.EventStop})
	c.port.Close() // what is queued by now, the notification, still goes out
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opts.StopTimeout)
	defer cancel()
	err := c.Close(bound)
	stopWorkers()
	wg.Wait()
	return err
}

// Abandon releases what a car holds whose Run ended by a panic, within ctx.
func (c *Car) Abandon(ctx context.Context) error {
	c.port.Close()
	return c.Close(ctx)
}

// arm sets the one timer. A deadline that moved into the future is not set
// anew, because it moves with every status: the timer fires, finds nothing due
// and is set again.
func (c *Car) arm() {
	at := c.session.Deadline()
	if at.IsZero() || (!c.armed.IsZero() && !c.armed.After(at)) {
		return
	}
	c.armed = at
	c.timer.Reset(time.Until(at))
}

func (c *Car) handleMail() {
	items, modules := c.mail.take(c.spare, c.modulesWithCommands[:0])
	for i := range items {
		c.handle(&items[i])
	}
	clear(items)
	c.spare, c.modulesWithCommands = items, modules
	if len(modules) > 1 { // in the order of configuration (SEQ-31)
		slices.SortFunc(modules, func(a, b int32) int { return c.position(a) - c.position(b) })
	}
	for _, n := range modules {
		if m := c.find(n); m != nil {
			c.step(session.Event{Kind: session.EventCommands, Module: n, Commands: m.worker.TakeCommands()})
		}
	}
}

func (c *Car) handle(it *item) {
	if it.kind == 0 { // Configure
		c.session.Configure(c.limits.Load().Session)
		return
	}
	ev := session.Event{Kind: it.kind}
	switch it.kind {
	case session.EventMessage:
		c.seen()
		if limit := c.limits.Load().Payload; len(it.payload) > limit {
			c.drop("message of the gateway is too large, ignored", slog.Int("bytes", len(it.payload)), slog.Int("limit", limit))
			return
		}
		m, err := protocol.DecodeClient(it.payload)
		if err != nil { // CONN-32
			c.drop("message of the gateway cannot be read, ignored", slog.Any("error", err))
			return
		}
		m.Redelivered = it.dup
		ev.Message = m
	case session.EventAdmission:
		ev.Ticket, ev.Admitted = it.ticket, it.admitted
	case session.EventLinkUp:
		c.setLink(true)
	case session.EventLinkDown:
		c.setLink(false)
	}
	c.step(ev)
}

// step lets the session handle one event and performs the effects.
func (c *Car) step(ev session.Event) {
	failed := false
	for _, e := range c.session.Step(time.Now(), ev) {
		if !c.perform(&e) {
			failed = true
		}
	}
	if failed && ev.Kind != session.EventPublishFailed {
		c.step(session.Event{Kind: session.EventPublishFailed})
	}
}

// perform carries out one effect; false means that a message could not be sent.
func (c *Car) perform(e *session.Effect) bool {
	switch e.Kind {
	case session.EffectPublish:
		return c.port.Publish(protocol.AppendServer(nil, e.Message))
	case session.EffectNotifyDisconnect:
		c.port.NotifyDisconnect() // the session is over either way
	case session.EffectDiscardOutgoing:
		c.port.DiscardPending()
	case session.EffectDeviceConnected:
		c.deviceConnected(e)
	case session.EffectForward:
		if m := c.find(e.Device.Module); m == nil || !m.worker.ForwardStatus(e.Device.ForModule(), e.Data, e.Error) {
			c.log.Error("an answered status could not be queued and is lost", "device", e.Device.String(), "counter", e.Counter)
		}
		c.statuses.Add(1)
	case session.EffectDeviceDisconnected:
		if m := c.find(e.Device.Module); m != nil {
			m.worker.DeviceDisconnected(e.Disconnect, e.Device.ForModule())
		}
	case session.EffectAck:
		if m := c.find(e.Module); m != nil {
			m.worker.CommandAck(fleet.Command{Device: e.Command.Device.ForModule(), Data: e.Command.Data})
		}
	case session.EffectSessionStarted, session.EffectSessionRunning, session.EffectSessionEnded:
		c.sessionChanged(e)
	case session.EffectNote:
		c.note(e)
	}
	return true
}

func (c *Car) deviceConnected(e *session.Effect) {
	ticket := e.Ticket
	m := c.find(e.Device.Module)
	if m == nil {
		c.mail.put(item{kind: session.EventAdmission, ticket: ticket})
		return
	}
	if e.First { // DEV-3
		if n := m.worker.DiscardCommands(); n > 0 {
			c.log.Info("commands fetched while the module had no device were discarded", "module", m.number, "commands", n)
		}
	}
	accepted := m.worker.DeviceConnected(e.Device.ForModule(), func(err error) {
		c.mail.put(item{kind: session.EventAdmission, ticket: ticket, admitted: err == nil, err: err})
	})
	if !accepted {
		c.mail.put(item{kind: session.EventAdmission, ticket: ticket})
	}
}

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

// moduleView answers the session's questions about the car's modules.
type moduleView struct{ c *Car }

func (v moduleView) Configured(n int32) bool { return v.c.find(n) != nil }

func (v moduleView) Supports(n int32, deviceType uint32) bool {
	m := v.c.find(n)
	return m != nil && m.module.Supports(deviceType)
}

func (v moduleView) Position(n int32) int { return v.c.position(n) }

func (v moduleView) Room(n int32) int {
	if m := v.c.find(n); m != nil {
		return m.worker.Free()
	}
	return 0
}

// Close releases the modules of a car whose Run was never called.
func (c *Car) Close(ctx context.Context) error {
	errs := make([]error, len(c.modules))
	var closing sync.WaitGroup
	for i, m := range c.modules {
		closing.Go(func() {
			if err := m.worker.Close(ctx); err != nil {
				errs[i] = fmt.Errorf("car %s: module %d: %w", c.opts.ID.Car, m.number, err)
			}
		})
	}
	closing.Wait()
	return errors.Join(errs...)
}
