package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// Options of New.
type Options struct {
	Self   string // name of this replica
	Shards int
	Scout  bool // cars found by "*" are served; see Cluster.AnyCar
	Store  Store
	Host   Host
	Log    *slog.Logger
	Timing Timing // zero: DefaultTiming
}

// Times of the calls that a Cluster makes.
const (
	healthTime = 250 * time.Millisecond // between two looks at Host.Health
	openTime   = 30 * time.Second       // of one Host.Open or Host.Close
	askTime    = 2 * time.Second        // of one Host.Ask
	writeTime  = 2 * time.Second        // of one write
)

// Cluster is one replica's part in a cluster: it runs the planner and does what that
// wants done.
type Cluster struct {
	opts    Options
	planner *Planner // of Run alone
	events  chan Event
	drain   chan struct{}
	drained chan struct{}
	once    sync.Once
	over    chan struct{} // Run has ended

	mu      sync.Mutex
	view    atomic.Pointer[View]
	changed chan struct{}
	counts  Counts
}

// Counts is what a replica did since its start.
type Counts struct {
	Claims   int64 // shards taken without a word of the owner before
	Received int64 // handed over by another replica
	Given    int64 // handed over to another replica
	Renewed  int64 // claims that had vanished while this replica served, taken again
	Lost     int64 // taken by another replica
	Failed   int64 // that could not be opened
}

// New returns a Cluster that has done nothing yet.
func New(opts Options) *Cluster {
	if opts.Timing == (Timing{}) {
		opts.Timing = DefaultTiming()
	}
	c := &Cluster{
		opts: opts, planner: NewPlanner(opts.Self, opts.Shards, opts.Scout, opts.Timing),
		events: make(chan Event), drain: make(chan struct{}), drained: make(chan struct{}), over: make(chan struct{}), changed: make(chan struct{}),
	}
	c.view.Store(&View{Self: opts.Self, Shards: make([]Owner, opts.Shards), Since: time.Now(), Problem: opts.Store.Status().Problem})
	return c
}

// View returns what is known now. It is for any goroutine; the value is not changed.
func (c *Cluster) View() *View { return c.view.Load() }

// Changed is closed at the next change of the view. Ask for it before the View.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Counts returns what this replica did.
func (c *Cluster) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// Lease returns the lease of this replica, and when it ends by this machine's monotonic clock
// unless etcd is heard from before. It is for any goroutine.
func (c *Cluster) Lease() (id int64, until time.Time) {
	s := c.opts.Store.Status()
	return s.Lease, s.Deadline
}

// Lost tells that the broker has told the Host that another replica serves a shard.
// Host.Close with lost follows, unless this replica does not serve the shard.
func (c *Cluster) Lost(shard int) { c.tell(Event{Kind: EventLost, Shard: shard}) }

// AnyCar tells whether cars found by "*" are served from now on. Run is under way or follows.
func (c *Cluster) AnyCar(served bool) { c.tell(Event{Kind: EventAnyCar, OK: served}) }

func (c *Cluster) tell(ev Event) {
	select {
	case c.events <- ev:
	case <-c.over:
	}
}

// BeginDrain begins what Drain waits for.
func (c *Cluster) BeginDrain() { c.once.Do(func() { close(c.drain) }) }

// Drain gives all shards away, to other replicas where there are any. It returns nil
// when this replica serves nothing any more; Run goes on, and takes no shard again.
func (c *Cluster) Drain(ctx context.Context) error {
	c.BeginDrain()
	select {
	case <-c.drained:
		return nil
	case <-c.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shards are still being handed over: %w", ctx.Err())
	}
}

// runner is the state of Run.
type runner struct {
	*Cluster
	ctx     context.Context
	work    sync.WaitGroup
	waiting map[int][]Action // writes of a shard, the first of which is being made
	done    chan func()      // what is to be done by Run's goroutine when some work has ended
	known   *Registry        // what the planner was told last
	fresh   bool             // the planner was told whether etcd answers
	unwell  bool             // the operator was told that this replica cannot serve
}

// Run takes part until the context ends. Then it waits for the calls to the Host, whose
// contexts have ended as well, and gives the lease back: others take over at once. An
// error before that says that this replica can not be a member.
func (c *Cluster) Run(ctx context.Context) error {
	defer close(c.over)
	work, stop := context.WithCancel(ctx)
	defer stop()
	store := make(chan error, 1)
	keep, leave := context.WithCancel(context.WithoutCancel(ctx))
	go func() { store <- c.opts.Store.Run(keep) }()
	r := &runner{Cluster: c, ctx: work, waiting: make(map[int][]Action), done: make(chan func(), 1)}
	err, ended := r.loop(store)
	stop()
	r.finish()
	leave()
	if !ended {
		err = <-store
	}
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// finish waits for what is under way.
func (r *runner) finish() {
	all := make(chan struct{})
	go func() { r.work.Wait(); close(all) }()
	for {
		select {
		case <-r.done:
		case <-r.events: // of somebody who would wait for ever
		case <-all:
			return
		}
	}
}

// loop returns when the context ends or the store has ended with an error.
func (r *runner) loop(store <-chan error) (err error, ended bool) {
	health := time.NewTicker(healthTime)
	defer health.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	drain := r.drain
	r.step(Event{Kind: EventHealth, Err: r.opts.Host.Health()})
	for {
		status := r.opts.Store.Status()
		r.learn(status)
		at, ok := r.planner.Deadline()
		if ok {
			timer.Reset(max(0, time.Until(at)))
		} else {
			timer.Stop()
		}
		select {
		case <-r.ctx.Done():
			return nil, false
		case err := <-store:
			return err, true
		case <-status.Changed:
		case <-timer.C:
			r.step(Event{Kind: EventTick})
		case <-health.C:
			r.step(Event{Kind: EventHealth, Err: r.opts.Host.Health()})
		case <-drain:
			drain = nil
			r.step(Event{Kind: EventDrain})
		case ev := <-r.events:
			r.step(ev)
		case f := <-r.done:
			r.learn(r.opts.Store.Status()) // a write that succeeded is known before its event
			f()
		}
	}
}

// learn tells the planner what the store knows, if it is news.
func (r *runner) learn(s Status) {
	if s.Registry != nil && (r.known != s.Registry) {
		r.known = s.Registry
		r.step(Event{Kind: EventRegistry, Registry: s.Registry})
	}
	if v := r.View(); v.Connected != s.Up || !r.fresh {
		r.fresh = true
		r.step(Event{Kind: EventEtcd, OK: s.Up})
	}
	r.show(s)
}

// step asks the planner, and does what it wants.
func (r *runner) step(ev Event) {
	for _, a := range r.planner.Step(time.Now(), ev) {
		r.act(a)
	}
	if r.planner.Drained() {
		select {
		case <-r.drained:
		default:
			close(r.drained)
		}
	}
}

// show publishes the view when it is another one.
func (r *runner) show(s Status) {
	old := r.View()
	v := r.planner.View()
	v.Connected, v.Problem, v.Notice, v.Since = s.Up, s.Problem, s.Notice, old.Since
	if v.Connected != old.Connected {
		v.Since = time.Now()
	}
	if reflect.DeepEqual(*old, v) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.Store(&v)
	close(r.changed)
	r.changed = make(chan struct{})
}
