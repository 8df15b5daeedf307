// Package shards makes one link of many that come and go: one for each shard of the cars
// that this server has at the moment, and one that looks for unknown cars.
//
// It may import link and fleet only.
package shards

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"external-server/internal/fleet"
	"external-server/internal/link"
)

// ErrNotServed says that the shard of a car has no link here.
var ErrNotServed = errors.New("the shard of the car is not served here")

// Child is the link of one shard.
type Child interface {
	link.Link
	link.Stater
}

// Link implements link.Link and link.Stater over its children. The life of a child is
// Put, Start, Take. All methods may be called from any goroutine.
type Link struct {
	of func(fleet.CarID) int

	mu      sync.Mutex
	shards  map[int]*child
	watches map[string]*watch // by company
	scout   *child            // nil: unknown cars are not looked for here
	ending  sync.WaitGroup    // of children
	stopped error             // the cause of the end of Run; nil: it has not ended
}

// child is one link.
type child struct {
	link   Child
	cancel context.CancelCauseFunc // nil: not started
	done   chan struct{}           // closed when its Run has returned
}

// watch is a company whose unknown cars are looked for.
type watch struct {
	company string
	unknown func(fleet.CarID, []byte)
	stop    func() // nil: there is no scout
}

var (
	_ link.Link   = (*Link)(nil)
	_ link.Stater = (*Link)(nil)
)

// New returns a link without children. of tells the shard of a car.
func New(of func(fleet.CarID) int) *Link {
	return &Link{of: of, shards: make(map[int]*child), watches: make(map[string]*watch)}
}

// Put adds the link of a shard. Its cars can be attached; nothing is sent or heard before
// Start.
func (l *Link) Put(shard int, c Child) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shards[shard] != nil {
		return fmt.Errorf("shard %d has a link already", shard)
	}
	l.shards[shard] = newChild(c)
	return nil
}

func newChild(c Child) *child { return &child{link: c, done: make(chan struct{})} }

// Start runs the link of a shard until Take, or until Run of this link ends. ended is told
// the error with which the child ends by itself, and may call Take; Run waits for it.
func (l *Link) Start(shard int, ended func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.shards[shard]; c != nil && c.cancel == nil {
		l.start(c, ended)
	}
}

// start runs a child; mu is held.
func (l *Link) start(c *child, ended func(error)) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c.cancel = cancel
	if l.stopped != nil {
		cancel(l.stopped)
	}
	l.ending.Go(func() {
		err := c.link.Run(ctx)
		itself := ctx.Err() == nil
		cancel(nil)
		close(c.done)
		if itself && ended != nil {
			ended(err)
		}
	})
}

// Take ends the link of a shard with the cause, waits for it, and removes it. It returns
// false if the shard has none.
func (l *Link) Take(shard int, cause error) bool {
	if !l.End(shard, cause) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.shards, shard)
	return true
}

// End ends the link of a shard as Take does. Its ports can still be used, which is of no
// effect, until Take.
func (l *Link) End(shard int, cause error) bool {
	l.mu.Lock()
	c := l.shards[shard]
	l.mu.Unlock()
	if c == nil {
		return false
	}
	c.end(cause)
	return true
}

// end ends a child that runs and waits for it.
func (c *child) end(cause error) {
	if c.cancel != nil {
		c.cancel(cause)
		<-c.done
	}
}

// Scout sets the link that looks for unknown cars, and ends the one before; nil: none does.
func (l *Link) Scout(c Child) error {
	l.mu.Lock()
	before := l.scout
	for _, w := range l.watches {
		w.leave()
	}
	l.scout = nil
	var errs []error
	if c != nil {
		l.scout = newChild(c)
		for _, w := range l.watches {
			errs = append(errs, w.join(c))
		}
		l.start(l.scout, nil)
	}
	l.mu.Unlock()
	if before != nil {
		before.end(nil)
	}
	return errors.Join(errs...)
}

func (w *watch) join(c Child) (err error) {
	w.stop, err = c.Watch(w.company, w.unknown)
	return err
}

func (w *watch) leave() {
	if w.stop != nil {
		w.stop()
	}
	w.stop = nil
}

// Attach implements link.Link. The error is ErrNotServed if the shard of the car has no
// link here.
func (l *Link) Attach(car fleet.CarID, receiver link.Receiver) (link.Port, error) {
	shard := l.of(car)
	l.mu.Lock()
	c := l.shards[shard]
	l.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("car %v, shard %d: %w", car, shard, ErrNotServed)
	}
	return c.link.Attach(car, receiver)
}

// Watch implements link.Link: the scout, whenever there is one, shows the cars. It knows
// none of them as attached: unknown gets the messages of all.
func (l *Link) Watch(company string, unknown func(fleet.CarID, []byte)) (func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watches[company] != nil {
		return nil, fmt.Errorf("company %s is watched already", company)
	}
	w := &watch{company: company, unknown: unknown}
	if l.scout != nil {
		if err := w.join(l.scout.link); err != nil {
			return nil, err
		}
	}
	l.watches[company] = w
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.watches[company] == w {
			delete(l.watches, company)
			w.leave()
		}
	}, nil
}

// Run implements link.Link: it waits until ctx ends, and ends the children that are left
// with the same cause.
func (l *Link) Run(ctx context.Context) error {
	<-ctx.Done()
	l.mu.Lock()
	l.stopped = context.Cause(ctx)
	for _, c := range l.all() {
		if c.cancel != nil {
			c.cancel(l.stopped)
		}
	}
	l.mu.Unlock()
	l.ending.Wait()
	return nil
}

// all are the children in the order of their shards, the scout last; mu is held.
func (l *Link) all() []*child {
	var out []*child
	for _, shard := range slices.Sorted(maps.Keys(l.shards)) {
		out = append(out, l.shards[shard])
	}
	if l.scout != nil {
		out = append(out, l.scout)
	}
	return out
}

// Children calls do with the links of the shards and of the scout.
func (l *Link) Children(do func(Child)) {
	l.mu.Lock()
	all := l.all()
	l.mu.Unlock()
	for _, c := range all {
		do(c.link)
	}
}

// StateOf is the state of the link of one shard; false: it has none.
func (l *Link) StateOf(shard int) (link.State, bool) {
	l.mu.Lock()
	c := l.shards[shard]
	l.mu.Unlock()
	if c == nil {
		return link.State{}, false
	}
	return c.link.State(), true
}

// State implements link.Stater: it is up when every child is. Without children it is up.
func (l *Link) State() link.State {
	out := link.State{Up: true}
	l.Children(func(c Child) {
		s := c.State()
		out.Up = out.Up && s.Up
		out.Cars += s.Cars
		out.Connections = append(out.Connections, s.Connections...)
		out.Refused += s.Refused
		if s.Since.After(out.Since) {
			out.Since = s.Since
		}
		if s.LastError != "" && (out.LastError == "" || !s.Up) {
			out.LastError = s.LastError
		}
		for _, text := range []struct{ to, from *string }{
			{&out.RefusedTopic, &s.RefusedTopic}, {&out.Stopped, &s.Stopped}, {&out.Declined, &s.Declined},
		} {
			if *text.to == "" {
				*text.to = *text.from
			}
		}
	})
	return out
}
