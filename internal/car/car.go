// Package car runs one car: one goroutine at a time owns its session, performs the
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

// Defaults of Options and Limits.
const (
	defaultMailbox     = 4096
	mailboxBytes       = 16 << 20 // or one message of the largest size
	quickPayload       = 16 << 10 // of a message that is handled on the link's goroutine
	defaultStopTimeout = 3 * time.Second
)

// Binding is one module of a car. The order of a car's bindings is the order of
// its modules (CFG-13).
type Binding struct {
	Module   module.Module
	Instance module.Instance // owned by the Car that New returns
}

// Options of New.
type Options struct {
	ID      fleet.CarID
	Limits  Limits
	Modules []Binding
	// MailboxSize bounds the messages of the gateway that wait for the car's
	// goroutine; zero means 4096.
	MailboxSize int
	// Observer is told what happens to the car; nil: nobody.
	Observer Observer
	Logger   *slog.Logger
}

// Car is the actor of one car. It implements link.Receiver.
type Car struct {
	opts    Options
	born    time.Time // with a monotonic reading
	log     *slog.Logger
	limit   logging.Limiter
	mail    *mailbox
	session *session.Session
	modules []*boundModule
	port    link.Port
	decoder protocol.Decoder

	payload  atomic.Int64                    // largest message, bytes
	stop     atomic.Int64                    // time.Duration, see Limits.Stop
	options  atomic.Pointer[session.Options] // of Configure, to be applied by the actor
	released atomic.Bool
	heir     atomic.Pointer[Car] // see HandOver
	defect   chan *Defect        // capacity 1

	counters counters

	// Of whoever works only, see mailbox.
	now        time.Time // of the current step
	ack        link.Ack  // of the message that is being handled
	answering  uint32    // its counter
	event      *Event    // see tell; nil without observer
	onLink     bool      // see work
	timer      *time.Timer
	armed      time.Time
	spare      mail
	phase      session.Phase // as in view
	started    time.Time     // of the current session
	linkReason error         // of the last loss of the link

	lifeLines        bucket // see lifeLine
	lifeLinesLeftOut int
	stopping         bool // Run is leaving
	notifyLast       bool // see perform

	mu   sync.Mutex
	view Snapshot
}

// New returns a car that does nothing until Attach and Run are called. The car
// owns the instances; on error they stay the caller's.
func New(opts Options) (*Car, error) {
	if opts.MailboxSize <= 0 {
		opts.MailboxSize = defaultMailbox
	}
	if opts.Logger == nil {
		return nil, errors.New("car: a logger is needed")
	}
	c := &Car{
		opts: opts,
		born: time.Now(),
		log:  opts.Logger.With(logging.ComponentKey, logging.ComponentCar, "car", opts.ID.Car),
		mail: newMailbox(opts.MailboxSize, max(mailboxBytes, opts.Limits.Payload)),

		defect: make(chan *Defect, 1),
	}
	if opts.Observer != nil {
		c.event = new(Event)
	}
	for _, b := range opts.Modules {
		number := b.Module.Number()
		m := &boundModule{number: number, module: b.Module, instance: b.Instance}
		worker := module.WorkerOptions{
			Logger:    c.log,
			QueueSize: opts.Limits.Queue,
			Supports:  b.Module.Supports,
			Notify: func() {
				if c.mail.putCommands(number) {
					go c.work(nil, false)
				}
			},
		}
		if o := opts.Observer; o != nil {
			m.event = new(Event)
			worker.Called = func(call *module.Call) { m.called(o, call) }
		}
		m.worker = module.NewWorker(b.Instance, number, worker)
		c.modules = append(c.modules, m)
	}
	c.session = session.New(opts.Limits.Session, moduleView{c})
	c.setLimits(opts.Limits)
	c.view = Snapshot{ID: opts.ID, Ended: make(map[session.Reason]uint64)}
	return c, nil
}

// ID names the car.
func (c *Car) ID() fleet.CarID { return c.opts.ID }

// Attach connects the car to the link; call it once, before Run.
func (c *Car) Attach(l link.Link) error {
	if c.port != nil { // from HandOver
		return nil
	}
	port, err := l.Attach(c.opts.ID, c)
	if err != nil {
		return fmt.Errorf("car %v: %w", c.opts.ID, err)
	}
	c.port = port
	return nil
}

// Message implements link.Receiver.
func (c *Car) Message(payload []byte, d link.Delivery) (heard bool) {
	now := time.Now()
	c.heard(now)
	if limit := c.payload.Load(); int64(len(payload)) > limit {
		c.counters.tooLarge.Add(1)
		c.limit.Log(c.log, slog.LevelInfo, "message of the gateway is too large, ignored",
			slog.Int("bytes", len(payload)), slog.Int64("limit", limit))
		c.tellDropped(DropTooLarge)
		c.dropped(d)
		return true
	}
	it := item{kind: session.EventMessage, payload: payload, delivery: d, at: now}
	v, work := c.mail.put(it)
	switch {
	case v == gone:
		heir := c.heir.Load()
		return heir != nil && heir.Message(payload, d)
	case work && len(payload) <= quickPayload:
		c.work(&it, true)
	case work:
		first := it
		go c.work(&first, false) // what takes long must not hold up the other cars
	}
	switch v {
	case full:
		c.counters.overflow.Add(1)
		c.limit.Log(c.log, slog.LevelWarn, "messages arrive faster than they are handled, dropped")
		c.tellDropped(DropOverflow)
		c.dropped(d)
	case tooMany:
		c.counters.limited.Add(1)
		c.limit.Log(c.log, slog.LevelWarn, "the gateway sends more messages than limits.messages_per_second allows, dropped")
		c.tellDropped(DropLimited)
		c.dropped(d)
	}
	return true
}

// dropped has a message acknowledged that will not be handled.
func (c *Car) dropped(d link.Delivery) {
	if d.Ack != (link.Ack{}) {
		c.linkChanged(item{kind: kindDropped, delivery: d})
	}
}

// Sent implements link.Receiver: the calls of the modules begin.
func (c *Car) Sent() {
	for _, m := range c.modules {
		m.begin()
	}
	if heir := c.heir.Load(); heir != nil { // who has heard it
		heir.Sent()
	}
}

// LinkUp implements link.Receiver.
func (c *Car) LinkUp(link.Up) { c.linkChanged(item{kind: session.EventLinkUp}) }

// BacklogRead implements link.Receiver.
func (c *Car) BacklogRead() {}

// LinkDown implements link.Receiver.
func (c *Car) LinkDown(reason error, _ bool) {
	c.linkChanged(item{kind: session.EventLinkDown, reason: reason})
}

// linkChanged is handled on the link's goroutine: ten thousand cars would otherwise
// begin as many at once.
func (c *Car) linkChanged(it item) {
	v, work := c.mail.put(it)
	if work {
		c.work(nil, false)
	}
	if heir := c.heir.Load(); v == gone && heir != nil {
		heir.linkChanged(it)
	}
}

// ErrReload is the cause of the end of Run's context when not the whole server stops
// but this car is changed or removed.
var ErrReload = errors.New("changed or removed by a reload")

// Run serves the car until ctx ends, then ends its session (CLI-24), lets the
// modules take what was accepted, closes their instances, all within
// StopTimeout, and leaves the link. It returns what could not be delivered or
// closed in time. A defect that a car meets, wherever it shows, is a panic of Run
// with a *Defect; the caller must then call Abandon. Run may be called once.
func (c *Car) Run(ctx context.Context) error {
	if c.port == nil {
		return errors.Join(errors.New("car: Attach must be called before Run"), c.release(ctx))
	}
	for _, m := range c.modules {
		m.worker.Start()
	}
	if c.mail.open() {
		go c.work(nil, false)
	}
	// This goroutine only waits, so that a car without traffic costs a small stack.
	select {
	case <-ctx.Done():
	case d := <-c.defect:
		panic(d)
	}
	c.mail.halt()
	select {
	case <-c.mail.idle:
	case d := <-c.defect:
		panic(d)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.stopping = true
	end := session.EventStop
	if errors.Is(context.Cause(ctx), ErrReload) {
		end = session.EventReload
	}
	c.step(time.Now(), session.Event{Kind: end})
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(c.stop.Load()))
	defer cancel()
	return c.release(bound)
}

// Close releases the modules of a car whose Run was never called.
func (c *Car) Close(ctx context.Context) error { return c.release(ctx) }

// Abandon releases a car whose Run panicked, before ctx ends: the modules see
// the devices disconnected, get what was accepted and are closed.
func (c *Car) Abandon(ctx context.Context) error {
	c.mu.Lock()
	devices := slices.Clone(c.view.Devices)
	c.mu.Unlock()
	for _, d := range devices {
		if m := c.find(d.Module); m != nil {
			m.worker.DeviceDisconnected(fleet.DisconnectTimeout, d.ForModule())
		}
	}
	return c.release(ctx)
}

// release ends everything but the actor itself, once.
func (c *Car) release(ctx context.Context) error {
	if !c.released.CompareAndSwap(false, true) {
		return nil
	}
	bequeathed := c.bequeath()
	c.mail.close()
	errs := make([]error, len(c.modules))
	var closing sync.WaitGroup
	for i, m := range c.modules {
		m.begin()
		closing.Go(func() {
			if err := m.worker.Close(ctx); err != nil {
				errs[i] = fmt.Errorf("car %s: module %d: %w", c.opts.ID.Car, m.number, err)
			}
		})
	}
	closing.Wait()
	if c.port != nil {
		if c.notifyLast && !(bequeathed && c.heir.Load().greeted()) {
			c.port.NotifyDisconnect()
		}
		if !bequeathed {
			c.port.Close() // a disconnect notification that is queued still goes out
		}
	}
	return errors.Join(errs...)
}
