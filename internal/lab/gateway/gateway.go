package gateway

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
)

// Settings of a Gateway.
type Settings struct {
	Car fleet.CarID
	// Core are the settings of its state machine. On a Pool the default of
	// Timing.LinkTimeout is 30 s, because many gateways subscribe at once.
	Core Options
	// Pool carries the gateway on shared connections. Nil: the gateway has a
	// connection of its own to Broker.
	Pool   *Pool
	Broker Broker
	// Observe is told every effect but EffectOpen and EffectClose, in order, one at a
	// time, on the goroutine that caused it. It must return soon; it may call the
	// methods of the gateway other than Close.
	Observe func(Effect)
	// Faults that the gateway has from the start.
	Faults Faults
}

// connection is what carries the messages of one gateway. All methods but
// shutdown return at once and are called one at a time.
type connection interface {
	open(gen uint64)
	publish(topic string, payload []byte) bool
	close()
	shutdown() // closes and waits for everything the connection has started
}

// Gateway runs a Core over a real broker. It needs no goroutine of its own: events
// are handled on the goroutine that brings them, one at a time. Its methods may be
// called from any goroutine.
type Gateway struct {
	car     fleet.CarID
	topics  topics
	observe func(Effect)
	conn    connection
	shared  bool

	phase  atomic.Uint32 // a Phase
	faults atomic.Pointer[Faults]

	mu      sync.Mutex
	idle    *sync.Cond // signalled when busy becomes false
	queue   []input
	spare   []input
	busy    bool
	stopped bool
	timer   *time.Timer
	timerAt time.Time // when the timer fires; zero: not armed
	linkErr error
	driven  map[fleet.DeviceID]*driven

	// Used by the goroutine that handles events only.
	core        *Core
	gen         uint64
	lastSession string
	injector    injector
}

// input is an event; gen is the connection it belongs to, 0 for none.
type input struct {
	event Event
	gen   uint64
}

// Start returns a running gateway without devices; it connects with the first
// status of a device. The caller owns it and must Close it.
func Start(s Settings) (*Gateway, error) {
	if err := CheckCar(s.Car); err != nil {
		return nil, err
	}
	if err := s.Faults.check(); err != nil {
		return nil, fmt.Errorf("gateway of car %v: %w", s.Car, err)
	}
	if s.Pool != nil && s.Core.Timing.LinkTimeout == 0 {
		s.Core.Timing.LinkTimeout = 30 * time.Second
	}
	core := New(s.Core)
	g := &Gateway{
		car: s.Car, topics: topicsOf(s.Car), observe: s.Observe, core: core,
		driven: make(map[fleet.DeviceID]*driven), shared: s.Pool != nil,
	}
	g.idle = sync.NewCond(&g.mu)
	g.faults.Store(&s.Faults)
	g.injector.rand = rand.New(rand.NewPCG(core.opts.Rand.Uint64(), core.opts.Rand.Uint64()))
	if s.Pool != nil {
		conn, err := s.Pool.attach(g)
		if err != nil {
			return nil, err
		}
		g.conn = conn
		return g, nil
	}
	if err := s.Broker.check(); err != nil {
		return nil, fmt.Errorf("gateway of car %v: %w", s.Car, err)
	}
	timeout := core.opts.Timing.LinkTimeout
	if timeout < 0 {
		timeout = time.Hour
	}
	g.conn = &own{broker: s.Broker, car: s.Car, topics: g.topics, timeout: timeout, receive: g.receive, report: g.linkReport}
	return g, nil
}

// Close ends the gateway and waits until nothing of it is left. The server is not
// told, as when a car is switched off. Further calls do nothing.
func (g *Gateway) Close() {
	g.post(Event{Kind: EventStop}, 0)
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return
	}
	g.stopped = true
	for g.busy {
		g.idle.Wait()
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	g.mu.Unlock()
	g.conn.shutdown()
}

// Car returns the car of the gateway.
func (g *Gateway) Car() fleet.CarID { return g.car }

// Status reports a new status of a device, as EventStatus does. planned is when it
// was meant to be sent, for latencies without coordinated omission; zero: now.
func (g *Gateway) Status(d fleet.Device, data []byte, planned time.Time) {
	g.post(Event{Kind: EventStatus, Device: d, Data: data, Planned: planned}, 0)
}

// Alive notes that a device is there without news.
func (g *Gateway) Alive(d fleet.Device) { g.post(Event{Kind: EventAlive, Device: d}, 0) }

// Leave takes a device away.
func (g *Gateway) Leave(d fleet.Device) { g.post(Event{Kind: EventLeave, Device: d}, 0) }

// Reconnect begins a new connection.
func (g *Gateway) Reconnect() { g.post(Event{Kind: EventReconnect}, 0) }

// Restart lets the gateway process die and start again with the same devices.
func (g *Gateway) Restart() { g.post(Event{Kind: EventRestart}, 0) }

// Phase returns the phase of the connection.
func (g *Gateway) Phase() Phase { return Phase(g.phase.Load()) }

// LinkError returns why the broker was not reached the last time, or nil.
func (g *Gateway) LinkError() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.linkErr
}

// post queues an event and handles the queue unless another goroutine, or a caller
// up the stack, is doing so.
func (g *Gateway) post(ev Event, gen uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return
	}
	g.queue = append(g.queue, input{ev, gen})
	if g.busy {
		return
	}
	g.busy = true
	for len(g.queue) > 0 {
		batch := g.queue
		g.queue = g.spare[:0]
		g.mu.Unlock()
		for i := range batch {
			g.handle(&batch[i])
		}
		g.mu.Lock()
		clear(batch)
		g.spare = batch
	}
	g.busy = false
	g.arm(g.core.Deadline())
	g.idle.Broadcast()
}

// arm lets the timer fire at the deadline. One that fires earlier is left alone and
// armed again then: most deadlines move on before they are due.
func (g *Gateway) arm(at time.Time) {
	if at.IsZero() || g.stopped || !g.timerAt.IsZero() && !at.Before(g.timerAt) {
		return
	}
	g.timerAt = at
	d := max(0, time.Until(at))
	if g.timer == nil {
		g.timer = time.AfterFunc(d, g.fire)
		return
	}
	g.timer.Reset(d)
}

func (g *Gateway) fire() {
	g.mu.Lock()
	g.timerAt = time.Time{}
	g.mu.Unlock()
	g.post(Event{Kind: EventDeadline}, 0)
}

// handle gives one event to the core and performs the effects.
func (g *Gateway) handle(in *input) {
	if in.gen != 0 && in.gen != g.gen {
		return // of a connection that is closed
	}
	if g.shared && in.event.Kind == EventMessage && in.event.Message.SessionID == g.lastSession && g.lastSession != "" {
		return // a connection of its own would not have brought it (CONN-7)
	}
	effects := g.core.Step(time.Now(), in.event)
	g.phase.Store(uint32(g.core.Phase()))
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case EffectOpen:
			g.gen++
			g.conn.open(g.gen)
			continue
		case EffectClose:
			g.gen++ // what still comes from the old one is not ours
			g.conn.close()
			g.injector.held = nil
			continue
		case EffectSequenceFailed, EffectDisconnected:
			g.lastSession = e.Session
		case EffectDeliver:
			g.mu.Lock()
			d := g.driven[e.Device.ID()]
			g.mu.Unlock()
			if d != nil {
				d.Command(e.Data)
			}
		}
		if g.observe != nil {
			g.observe(*e)
		}
		if e.Kind == EffectSend {
			g.send(&e.Message)
		}
	}
}

// send publishes a message. What is not text is found out by the Connect, which names
// all devices, or by the first status of one that joins later.
func (g *Gateway) send(m *fleet.ClientMessage) {
	var payload []byte
	var err error
	if m.Kind == fleet.ClientConnect || m.State == fleet.StateConnecting && m.Kind == fleet.ClientStatus {
		payload, err = protocol.EncodeClient(*m, g.car)
	} else {
		payload = protocol.AppendClient(make([]byte, 0, 96+len(m.Data)+len(m.Device.Role)+len(m.Device.Name)), m)
	}
	if err == nil && g.injector.publish(*g.faults.Load(), payload, g.publish) {
		return
	}
	g.post(Event{Kind: EventPublishFailed}, g.gen)
}

func (g *Gateway) publish(payload []byte) bool { return g.conn.publish(g.topics.up, payload) }

// receive takes a message from the connection.
func (g *Gateway) receive(gen uint64, topic string, payload []byte) {
	if g.faults.Load().Silent {
		return
	}
	if topic == g.topics.notification {
		g.post(Event{Kind: EventNotification}, gen)
		return
	}
	m, err := protocol.DecodeServer(payload)
	if err != nil {
		g.post(Event{Kind: EventUnparseable}, gen)
		return
	}
	g.post(Event{Kind: EventMessage, Message: m}, gen)
}

// linkReport is told how an open ended.
func (g *Gateway) linkReport(gen uint64, err error) {
	g.mu.Lock()
	g.linkErr = err
	g.mu.Unlock()
	if err != nil {
		g.post(Event{Kind: EventLinkFailed}, gen)
		return
	}
	g.post(Event{Kind: EventLinkUp}, gen)
}
