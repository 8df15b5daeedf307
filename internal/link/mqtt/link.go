// Package mqtt carries the messages of many cars over one or a few connections
// to an MQTT broker (CONN-1..13, REC-1): version 3.1.1, or 5 where sessions outlive the
// process. It knows topics and packets, not
// the protocol's messages.
//
// It may import link, fleet and the packages in its folder, which hold no lock of a connection: conn.mu
// guards what conn has of them.
package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt/bootclock"
	"external-server/internal/link/mqtt/pace"
	"external-server/internal/link/mqtt/reports"
	"external-server/internal/link/mqtt/topics"
)

// Link implements link.Link.
//
// Every car belongs to one connection from Attach on. A connection has two
// goroutines: the reader delivers to the receivers, all of them, and sends what they
// have queued meanwhile, one message of each car in turn, if that needs no waiting;
// the writer sends what is queued at other times and what is left.
type Link struct {
	opts    Options
	log     *slog.Logger
	reports reports.Reports
	tuning  atomic.Pointer[Tuning]
	keeping *keeping
	clock   func() time.Duration // runs on while the machine sleeps
	born    time.Time
	pacing  *pace.Pacing

	mu      sync.Mutex // before conn.mu
	conns   []*conn
	ports   map[fleet.CarID]*port
	watches map[string]*watch       // by company
	ctx     context.Context         // of Run; nil: not running
	fence   context.CancelCauseFunc // ends ctx
	stopped bool
	running sync.WaitGroup
}

var _ link.Link = (*Link)(nil)

// New checks the options and returns a link that connects when Run is called.
func New(opts Options) (*Link, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	l := &Link{
		opts:    opts,
		log:     opts.Logger.With("broker", opts.Address),
		ports:   make(map[fleet.CarID]*port),
		watches: make(map[string]*watch),
		keeping: newKeeping(),
		clock:   bootclock.Now,
		born:    time.Now(),
		pacing:  pace.New(),
	}
	if err := l.Tune(*opts.tuning()); err != nil {
		return nil, err
	}
	if l.opts.Sessions != nil {
		for _, shard := range l.opts.Sessions.served() {
			l.conns = append(l.conns, newConn(l, shard))
		}
	} else {
		for range max(1, l.opts.Connections) {
			l.conns = append(l.conns, newConn(l, len(l.conns)))
		}
	}
	l.conns[0].lead = true
	return l, nil
}

// Attach implements link.Link. A car can be attached once at a time; its name
// and its company must be words of lower-case letters, digits and _ (VOC-1).
func (l *Link) Attach(car fleet.CarID, receiver link.Receiver) (link.Port, error) {
	if !topics.Valid(car.Company) || !topics.Valid(car.Car) {
		return nil, fmt.Errorf("car %v: company and car must consist of a-z, 0-9 and _ to form topics", car)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.ports[car]; ok {
		return nil, fmt.Errorf("car %v is attached already", car)
	}
	c := l.choose(car)
	if c == nil {
		s := l.opts.Sessions
		return nil, fmt.Errorf("car %v belongs to shard %d of %d, which this link does not serve (it serves %v)", car, Shard(car, s.Shards), s.Shards, s.Only)
	}
	p := newPort(c, car, receiver)
	l.ports[car] = p
	c.cars++
	c.attach(p)
	return p, nil
}

// choose returns the connection for a new car, nil if the link does not serve its shard. Cars
// of a watched company share the connection of the watch, because their messages arrive there.
func (l *Link) choose(car fleet.CarID) *conn {
	if s := l.opts.Sessions; s != nil {
		if l.keeping.declined.Load() != nil {
			return l.conns[0]
		}
		return l.connOf(Shard(car, s.Shards))
	}
	if w := l.watches[car.Company]; w != nil {
		return w.conn
	}
	best := l.conns[0]
	for _, c := range l.conns[1:] {
		if c.cars < best.cars {
			best = c
		}
	}
	if l.opts.Connections == 0 && best.cars >= carsPerConnection && len(l.conns) < maxConnections {
		best = newConn(l, len(l.conns))
		l.conns = append(l.conns, best)
		l.start(best)
	}
	return best
}

// connOf returns the connection of a shard, nil if the link does not serve it; l.mu is held.
func (l *Link) connOf(shard int) *conn {
	for _, c := range l.conns {
		if c.index == shard && !c.scout {
			return c
		}
	}
	return nil
}

// start runs a connection if the link runs; l.mu is held.
func (l *Link) start(c *conn) {
	if l.ctx == nil || l.stopped {
		return
	}
	ctx, cancel := context.WithCancelCause(l.ctx)
	c.cancel, c.lostAt = cancel, l.clock()
	l.running.Go(func() {
		defer cancel(nil)
		c.run(ctx)
	})
}

// attachedElsewhere tells whether a car gets its messages over another
// connection than c.
func (l *Link) attachedElsewhere(car fleet.CarID, c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.ports[car]
	return p != nil && p.conn.Load() != c
}

// Run implements link.Link; what is queued at the end has Options.StopTimeout, 1 s, to
// leave. It may be called once. With Options.Sessions it removes the sessions at the
// broker when it ends. If the cause of ctx's end is link.ErrSuspend, the broker keeps
// them; ports must then not be closed before. If it is link.ErrUnheard, Run sends nothing more and does not wait
// for the broker. When another server serves a shard, Run returns
// an error that is link.ErrFenced.
func (l *Link) Run(ctx context.Context) error {
	ctx, fence := context.WithCancelCause(ctx)
	defer fence(nil)
	l.mu.Lock()
	if l.ctx != nil {
		l.mu.Unlock()
		return fmt.Errorf("mqtt: Run may be called once")
	}
	l.ctx, l.fence = ctx, fence
	for _, c := range l.conns {
		l.start(c)
	}
	l.mu.Unlock()
	<-ctx.Done()
	l.mu.Lock()
	l.stopped = true // a connection being started is counted by now, later ones do not start
	l.mu.Unlock()
	l.running.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, link.ErrFenced) {
		return cause
	}
	return nil
}

// Announce publishes what Options.Sessions.Announce returns now over the present
// connections: the owner of the shard is the same, and its epoch has changed.
func (l *Link) Announce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.mu.Lock()
		if s := l.opts.Sessions; s.fenced() && c.alive && c.isShard() {
			topic, payload := s.Announce(c.index)
			c.control = c.publish(c.control, topic, payload, true)
		}
		c.unlockAndWake()
	}
}

// Settled tells, after Run has returned, whether the broker has acknowledged everything
// that was published.
func (l *Link) Settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		if !c.settled.Load() {
			return false
		}
	}
	return true
}
