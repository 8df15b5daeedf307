package core

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
)

// Limits of the core.
const (
	queueLength   = 4096             // posts that wait for the writer
	queueWait     = 5 * time.Second  // how long a post waits for room in the queue
	batchPosts    = 256              // posts in one transaction
	batchBytes    = 4 << 20          // of data in one transaction, beyond its first post
	storeTimeout  = 30 * time.Second // of one transaction
	parallelReads = 8                // reads of the store for polls at a time
)

// What Options that are 0 mean.
const (
	DefaultWaits     = 50_000 // requests that may wait at a time
	defaultRetention = time.Hour
	defaultWait      = 5 * time.Second // HTTP-11
	defaultCars      = 50_000
)

// Options are what a core is made from. Only Open is required.
type Options struct {
	// Open opens the store. It is called again until it succeeds.
	Open        func(ctx context.Context) (store.Store, error)
	Logger      *slog.Logger     // nil: none
	Now         func() time.Time // the API's clock; nil is time.Now
	Retention   time.Duration    // how long messages are kept; 0 is 1 h
	WaitTimeout time.Duration    // of requests with wait=true; 0 is 5 s
	MaxWaits    int              // requests that may wait at a time; 0 is 50 000
	MaxCars     int              // cars that may be known at a time; 0 is 50 000
	Patience    time.Duration    // how long Begin waits for the store; 0 is 2 s
	// Owners is set when several servers share the store, which must then be a store.Shared.
	Owners Owners
}

// Core is the API itself. It implements httpapi.API; all methods may be called from many
// goroutines.
type Core struct {
	// store is nil until open has succeeded. The writer sets it, before starting says
	// that everybody may use it.
	store     store.Store
	open      func(ctx context.Context) (store.Store, error)
	starting  atomic.Pointer[httpapi.Error] // the answer to every request until the store is loaded; then nil
	lost      atomic.Bool                   // the writer connects or loads again: posts are refused
	first     chan error                    // how the first attempt to load ended
	patience  time.Duration                 // of Begin
	log       *slog.Logger
	now       func() time.Time
	retention atomic.Int64 // time.Duration
	wait      atomic.Int64 // time.Duration
	maxWaits  int
	maxCars   atomic.Int64
	stats     counters
	faults    *faultLog

	queue   chan *post
	reads   chan struct{} // semaphore of parallelReads
	stopped chan struct{} // closed when no new requests are taken
	done    chan struct{} // closed when the writer has ended
	ctx     context.Context
	cancel  context.CancelFunc // ends reads that polls have started

	mu      sync.Mutex
	closed  bool
	enqueue sync.WaitGroup // posts between the check of closed and the queue
	running sync.WaitGroup // reads on behalf of polls
	cars    map[fleet.CarID]*carState
	held    int // cars that are held beyond the requests that wait for them
	known   int // cars with a device
	devices int
	waits   int
	newCars waitList // requests for /cars

	floor int64          // highest timestamp ever given to a car that has been forgotten
	stale []store.Device // of the store, without any status: the next sweep removes them

	age ageClock // of the writer's goroutine

	// In a cluster only.
	own    *ownership
	shared store.Shared // store, set with it
}

type deviceState struct {
	id       httpapi.DeviceID
	storedAt int64 // when the newest STATUS was stored, or what made the device known, by ageClock
	notedAt  int64 // timestamp of the same as the store has noted it, at most store.TouchInterval older
}

// carState exists for cars that have ever had a message, are known or are waited
// for. A car is known when it has a device.
type carState struct {
	id fleet.CarID
	// last is the newest timestamp given to any message, deleted ones included. It is
	// the car's own: what one car was given while the clock was wrong is not the
	// others' concern.
	last     int64
	knownAt  int64
	devices  map[httpapi.DeviceKey]*deviceState
	held     bool  // counted: it has had a message, which a car that is waited for need not
	storedAt int64 // when its newest message was stored, by ageClock; 0: not known
	// newest is an upper bound of the stored timestamps of each kind: a request
	// beyond it needs no look into the store.
	newest  [2]int64
	waiting [2]waitList
}

func (c *carState) known() bool { return len(c.devices) > 0 }

// New makes a core. It does nothing yet: Begin starts it.
func New(o Options) *Core {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxWaits <= 0 {
		o.MaxWaits = DefaultWaits
	}
	if o.Patience <= 0 {
		o.Patience = startPatience
	}
	c := &Core{
		open: o.Open, patience: o.Patience, log: o.Logger, now: o.Now, maxWaits: o.MaxWaits,
		faults: newFaultLog(o.Logger), first: make(chan error, 1),
		queue: make(chan *post, queueLength), reads: make(chan struct{}, parallelReads),
		stopped: make(chan struct{}), done: make(chan struct{}),
		cars: map[fleet.CarID]*carState{}, age: newAgeClock(o.Now),
	}
	c.starting.Store(httpapi.NewError(http.StatusServiceUnavailable, "the message store is being opened and loaded after the start of the server; try again"))
	c.SetWaitTimeout(o.WaitTimeout)
	c.SetRetention(o.Retention)
	c.SetMaxCars(o.MaxCars)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if o.Owners != nil {
		c.own = newOwnership(o.Owners)
	}
	return c
}

// SetRetention changes how long messages are kept; 0 is 1 h.
func (c *Core) SetRetention(d time.Duration) {
	if d <= 0 {
		d = defaultRetention
	}
	c.retention.Store(int64(d))
}

// SetWaitTimeout changes how long requests wait from now on; 0 is 5 s.
func (c *Core) SetWaitTimeout(d time.Duration) {
	if d <= 0 {
		d = defaultWait
	}
	c.wait.Store(int64(d))
}

// SetMaxCars changes how many cars may be known at a time; 0 is 50 000. Those that are
// known stay.
func (c *Core) SetMaxCars(n int) {
	if n <= 0 {
		n = defaultCars
	}
	c.maxCars.Store(int64(n))
}

// NotReady returns the answer to every request until the store is loaded, and nil from
// then on.
func (c *Core) NotReady() error {
	if err := c.starting.Load(); err != nil {
		return err
	}
	return nil
}

// Stopping returns a channel that is closed when no new requests are taken.
func (c *Core) Stopping() <-chan struct{} { return c.stopped }

// restore takes over what the store knows of certain cars. Requests that wait stay. The
// lock is held.
func (c *Core) restore(state *store.State, of func(fleet.CarID) bool) {
	for id, car := range c.cars {
		if !of(id) {
			continue
		}
		if car.known() {
			c.known--
		}
		c.devices -= len(car.devices)
		car.devices = map[httpapi.DeviceKey]*deviceState{}
	}
	for _, d := range state.Devices {
		car := c.car(d.Car)
		if !car.known() {
			c.known++
		}
		car.knownAt = state.Cars[d.Car]
		c.devices++
		car.devices[d.Device.Key()] = &deviceState{id: d.Device, storedAt: d.StoredAt, notedAt: d.StatusAt - store.TouchInterval}
	}
	for id, last := range state.Last {
		car := c.car(id)
		car.last = max(car.last, last)
		c.hold(car)
	}
	c.floor = max(c.floor, state.Floor)
	c.stale = append(slices.DeleteFunc(c.stale, func(d store.Device) bool { return of(d.Car) }), state.Stale...)
	for id, car := range c.cars {
		if !of(id) {
			continue
		}
		car.newest = [2]int64{car.last, car.last}
		c.release(car)
	}
}

// car returns the state of a car and makes one if need be. The lock is held.
func (c *Core) car(id fleet.CarID) *carState {
	car := c.cars[id]
	if car == nil {
		car = &carState{id: id, devices: map[httpapi.DeviceKey]*deviceState{}}
		c.cars[id] = car
	}
	return car
}

// ErrStopping is the answer to every request that comes or waits while the server stops.
var ErrStopping = httpapi.NewError(http.StatusServiceUnavailable, "the server is stopping")

// PostStatuses implements API.
func (c *Core) PostStatuses(ctx context.Context, car fleet.CarID, messages []httpapi.Message) error {
	return c.checkAndPost(ctx, httpapi.KindStatus, car, messages)
}

// PostCommands implements API.
func (c *Core) PostCommands(ctx context.Context, car fleet.CarID, messages []httpapi.Message) error {
	return c.checkAndPost(ctx, httpapi.KindCommand, car, messages)
}

func (c *Core) checkAndPost(ctx context.Context, k httpapi.Kind, car fleet.CarID, messages []httpapi.Message) error {
	if err := httpapi.CheckCar(car); err != nil {
		return err
	}
	messages = append([]httpapi.Message(nil), messages...)
	if err := httpapi.CheckMessages(k, messages); err != nil {
		return err
	}
	return c.Post(ctx, k, car, messages)
}

// Post hands checked messages to the writer and waits until they are durable.
func (c *Core) Post(ctx context.Context, k httpapi.Kind, car fleet.CarID, messages []httpapi.Message) error {
	if err := c.starting.Load(); err != nil {
		return err
	}
	if !c.MayServe(car) {
		return ErrMoved
	}
	if len(messages) == 0 { // HTTP-14, HTTP-15
		if k == httpapi.KindCommand && !c.isKnown(car) {
			return NotKnown(car)
		}
		return nil
	}
	if c.lost.Load() {
		return c.faults.lastError()
	}
	p := &post{car: car, kind: k, messages: messages, result: make(chan error, 1)}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrStopping
	}
	c.enqueue.Add(1)
	c.mu.Unlock()
	err := c.put(ctx, p)
	c.enqueue.Done()
	if err != nil {
		return err
	}
	select {
	case err := <-p.result:
		return err
	case <-ctx.Done():
		// The writer drops it if it has not begun with it.
		p.abandoned.Store(true)
		return ctx.Err()
	}
}

func (c *Core) put(ctx context.Context, p *post) error {
	select {
	case c.queue <- p:
		return nil
	default:
	}
	timer := time.NewTimer(queueWait)
	defer timer.Stop()
	select {
	case c.queue <- p:
		return nil
	case <-timer.C:
		return httpapi.NewError(http.StatusServiceUnavailable, "%d posts wait for the message store; try again later", queueLength)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop takes no new requests and answers those that wait. Posts in the queue are
// still stored.
func (c *Core) Stop() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	close(c.stopped)
	released := c.newCars.takeAll()
	for _, car := range c.cars {
		for k := range car.waiting {
			released = append(released, car.waiting[k].takeAll()...)
		}
	}
	c.settle(released)
	c.mu.Unlock()
	for _, w := range released {
		w.fail(ErrStopping)
	}
	c.cancel()
}

// Close stops and returns when everything accepted is stored and every goroutine
// has ended. The store is still open.
func (c *Core) Close() {
	c.Stop()
	c.enqueue.Wait()
	c.mu.Lock()
	if c.queue != nil {
		close(c.queue)
		c.queue = nil
	}
	c.mu.Unlock()
	<-c.done
	c.running.Wait()
}

// CloseStore closes the store, if it has ever been open. The core has been closed.
func (c *Core) CloseStore() error {
	if c.store == nil {
		return nil
	}
	return c.store.Close()
}
