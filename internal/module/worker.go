package module

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/logging"
)

// WorkerOptions are the settings of a Worker; zero values mean the defaults.
type WorkerOptions struct {
	Logger       *slog.Logger
	QueueSize    int           // statuses that wait for the module, default 1000
	QueueBytes   int           // of these statuses with their devices' texts, default 64 MiB; the last one may exceed it
	CommandQueue int           // fetched commands that wait for the car before no more are fetched, default 1000
	CommandBytes int           // the same for their bytes, default 64 MiB
	BackoffMin   time.Duration // after a failed wait_for_command (DEF-24), default 100 ms
	BackoffMax   time.Duration // default 5 s
	// Supports asks the module about a device type before device_connected and for
	// AskType. It may block. Nil: every type is served.
	Supports func(deviceType uint32) bool
	// Lost are statuses of an earlier process that were given up; WorkerStats counts them.
	Lost uint64
	// Notify is called, from the poller's goroutine, when commands were fetched.
	// It must not block.
	Notify func()
	// Stale is told, from the calling goroutine, how many commands a module held from
	// the time before a device was connected; they are discarded. It must return at
	// once. Nil: it is not told.
	Stale func(commands int)
	// Confirmed is told, from the calling goroutine, that the status with the number and
	// all before it need not be handed over by another process. It must return at
	// once. Nil: what is left at Close is lost.
	Confirmed func(number uint64)
	// Begins is told, from the calling goroutine and before the call, that a status of an
	// earlier process (Status.Again) is about to be handed over; what it returns is called
	// when that is done, nil: nothing is. Nil: it is not told.
	Begins func(number uint64) (ended func())
	// Permit is asked before every call; nil: all may be made.
	Permit Permit
	// Called is told every call that has come back, from the calling goroutine and
	// before the result has consequences. The Call is valid during Called only,
	// which must return at once. Nil: it is not called.
	Called func(*Call)
}

func (o WorkerOptions) withDefaults() WorkerOptions {
	if o.QueueSize <= 0 {
		o.QueueSize = DefaultQueue
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 64 << 20
	}
	if o.CommandQueue <= 0 {
		o.CommandQueue = 1000
	}
	if o.CommandBytes <= 0 {
		o.CommandBytes = 64 << 20
	}
	if o.BackoffMin <= 0 {
		o.BackoffMin = 100 * time.Millisecond
	}
	if o.BackoffMax <= 0 {
		o.BackoffMax = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Supports == nil {
		o.Supports = func(uint32) bool { return true }
	}
	if o.Notify == nil {
		o.Notify = func() {}
	}
	if o.Stale == nil {
		o.Stale = func(int) {}
	}
	return o
}

// WorkerStats counts what a worker has done since it was made.
type WorkerStats struct {
	Queued            int       // jobs waiting, the running one included
	OldestQueued      time.Time // when the oldest of them was queued, zero: none
	Statuses          uint64    // forward_status calls that returned OK
	Errors            uint64    // calls of any kind that failed
	Lost              uint64    // statuses that were accepted and not delivered for certain
	AcksDropped       uint64    // acknowledgements that found the queue full
	CommandsFetched   uint64
	CommandsDiscarded uint64 // stale ones (DEV-3), those left at the stop and those that can be sent to no car
}

// Worker feeds one Instance: a goroutine makes the calls in the order they were
// queued, as long as there are any; another one polls for commands unless the
// instance brings them (REC-8, CMD-1): a Holder while a device is connected, any other
// instance all the time. No method but Close blocks. A call may take
// as long as it likes, for instance while a module process is started anew; what
// comes meanwhile waits in the queue.
type Worker struct {
	instance Instance
	number   int32
	opts     WorkerOptions
	log      *slog.Logger
	limit    logging.Limiter
	jobs     *jobs
	inbox    inbox
	forwards forwards

	statuses, errs, lost, acksDropped, fetched, discarded atomic.Uint64

	made Call // of the calling goroutine

	started   atomic.Bool
	callCtx   context.Context // of every call but WaitCommands
	stopCalls context.CancelFunc
	permitCtx context.Context // of waits for the Permit
	endWaits  context.CancelFunc

	poll       chan struct{} // closed when the polling has ended
	lastPoll   chan struct{} // closed when no further poll is wanted
	pollMu     sync.Mutex
	pollEnded  bool               // endPolling was called
	stopSource func()             // of a CommandSource
	held       held               // of a Holder
	stopPoll   context.CancelFunc // of the goroutine that polls any other instance
	stale      atomic.Bool        // what a Holder holds is to be discarded
}

// NewWorker takes ownership of the instance. number is the module's.
func NewWorker(instance Instance, number int32, opts WorkerOptions) *Worker {
	opts = opts.withDefaults()
	w := &Worker{
		instance: instance,
		number:   number,
		opts:     opts,
		log:      opts.Logger.With(logging.ComponentKey, logging.ComponentModule, "module", number),
		jobs:     newJobs(opts.QueueSize, opts.QueueBytes),
		inbox:    inbox{limit: opts.CommandQueue, maxBytes: opts.CommandBytes},
		poll:     make(chan struct{}),
		lastPoll: make(chan struct{}),
	}
	w.lost.Store(opts.Lost)
	w.callCtx, w.stopCalls = context.WithCancel(context.Background())
	w.permitCtx, w.endWaits = context.WithCancel(w.callCtx)
	w.forwards.init(w)
	return w
}

// SetQueueSize changes WorkerOptions.QueueSize; zero means the default. What is
// queued already stays, even when it is more.
func (w *Worker) SetQueueSize(statuses int) {
	if statuses <= 0 {
		statuses = DefaultQueue
	}
	w.jobs.setLimit(statuses)
}

// Start begins to make the calls and to fetch commands, until Close.
func (w *Worker) Start() {
	if !w.started.CompareAndSwap(false, true) {
		return
	}
	w.startPolling() // before the calls, which look at what it has chosen
	if w.jobs.start() {
		go w.makeCalls()
	}
}

// ended waits for the end of a goroutine and tells whether it came before ctx
// ended; it prefers yes.
func ended(ctx context.Context, goroutine <-chan struct{}) bool {
	select {
	case <-goroutine:
		return true
	case <-ctx.Done():
	}
	select {
	case <-goroutine:
		return true
	default:
		return false
	}
}

// DeviceConnected queues device_connected, which is made if the module serves the
// type. done gets the result, once, on a goroutine of the worker: ErrUnsupportedType
// if it does not; never, when DeviceDisconnected withdraws the call. It reports false
// when the worker is closed.
func (w *Worker) DeviceConnected(device fleet.Device, done func(error)) bool {
	w.inbox.want()
	return w.put(job{kind: jobConnected, device: device, done: done, at: time.Now()})
}

// AskType queues the question whether the module serves the type. done gets the
// answer on a goroutine of the worker; never, when another question takes the place
// of this one before it was asked: one waits at most. It reports false when the
// worker is closed.
func (w *Worker) AskType(deviceType uint32, done func(error)) bool {
	return w.put(job{kind: jobAskType, device: fleet.Device{Type: deviceType}, done: done, at: time.Now()})
}

// QueueStatus queues forward_status and, if Error is not empty,
// forward_error_message right after it (STAT-30). ok is
// false when the queue is full or the worker is closed. begin says that the calls have
// to begin: the caller must then call Begin, once and soon.
func (w *Worker) QueueStatus(s Status) (ok, begin bool) {
	return w.jobs.put(job{kind: jobStatus, device: s.Device, data: s.Data, message: s.Error, number: s.Number, again: s.Again, at: time.Now()})
}

// Status is one status for a module. The worker owns its slices.
type Status struct {
	Device fleet.Device
	Data   []byte
	Error  []byte // may be empty
	Number uint64 // see WorkerOptions.Confirmed
	// Again: an earlier process has accepted it, so it is queued even when the queue is
	// full.
	Again bool
}

// DeviceDisconnected queues device_disconnected, or withdraws the device's
// device_connected if it still waits and nothing of the device is queued behind
// it: the module then hears of neither. It reports false when the worker is
// closed.
func (w *Worker) DeviceDisconnected(kind fleet.DisconnectType, device fleet.Device) bool {
	return w.put(job{kind: jobDisconnected, device: device, kindGone: kind, at: time.Now()})
}

// CommandAck queues command_ack; it reports false, and counts, when as many
// acknowledgements as the queue may hold statuses wait already.
func (w *Worker) CommandAck(command fleet.Command) bool {
	if w.put(job{kind: jobAck, device: command.Device, data: command.Data, at: time.Now()}) {
		return true
	}
	w.acksDropped.Add(1)
	w.limit.Log(w.log, slog.LevelWarn, "too many acknowledgements wait for the module, dropped",
		slog.Any("device", command.Device), slog.Int("limit", w.jobs.size()))
	return false
}

// Waiting returns the statuses that were not confirmed, oldest first; their slices are
// the worker's and never change. One that is being confirmed may be among them.
func (w *Worker) Waiting() []Status { return w.jobs.waiting() }

// Resuming tells whether a status of an earlier process (Status.Again) still waits, or is
// being handed over.
func (w *Worker) Resuming() bool { return w.jobs.resuming() }

// Free tells how many more statuses the queue takes.
func (w *Worker) Free() int { return w.jobs.free() }

// Stats may be called at any time.
func (w *Worker) Stats() WorkerStats {
	n, oldest := w.jobs.depth()
	return WorkerStats{
		Queued:            n,
		OldestQueued:      oldest,
		Statuses:          w.statuses.Load(),
		Errors:            w.errs.Load(),
		Lost:              w.lost.Load(),
		AcksDropped:       w.acksDropped.Load(),
		CommandsFetched:   w.fetched.Load(),
		CommandsDiscarded: w.discarded.Load(),
	}
}

// Close refuses further jobs, lets the instance have what was accepted, ends the
// poller and closes the instance, all before ctx ends: a quarter of the time to
// its deadline is kept for the end of the calls and of the instance. What could
// not be delivered is counted, logged and part of the error. Call it once.
func (w *Worker) Close(ctx context.Context) error { return w.end(ctx, w.abandon) }

// Suspend is Close for a worker whose Confirmed says what another process need not hand
// over: it waits no longer than suspendDelivery for the calls that have not begun, and
// what waits then is not lost.
func (w *Worker) Suspend(ctx context.Context) error {
	w.jobs.close()
	short, cancel := context.WithTimeout(ctx, suspendDelivery)
	defer cancel()
	if w.started.Load() && !ended(short, w.jobs.done) {
		w.endWaits()
		w.jobs.halt() // the call that is under way still counts when it comes back in time
	}
	return w.end(ctx, w.leave)
}

// suspendDelivery is short beside what gateways notice, and long enough for the queue of
// a module that keeps up.
const suspendDelivery = 200 * time.Millisecond

// end ends the worker. giveUp empties the queue and returns how many statuses of it are
// lost.
func (w *Worker) end(ctx context.Context, giveUp func() (lost int)) error {
	w.jobs.close()
	w.endPolling()
	if w.started.CompareAndSwap(false, true) { // Start was never called
		w.jobs.halt()
		close(w.poll)
	}
	delivery, cancel := mostOf(ctx)
	defer cancel()
	var errs []error
	if !ended(delivery, w.jobs.done) {
		if lost := giveUp(); lost > 0 {
			errs = append(errs, fmt.Errorf("%d answered statuses were not delivered", lost))
		}
	}
	w.stopCalls()
	w.jobs.letGo()
	if !ended(ctx, w.jobs.done) {
		errs = append(errs, fmt.Errorf("calls were not finished: %w", ErrStuck))
	}
	if lost := giveUp(); lost > 0 { // never started
		errs = append(errs, fmt.Errorf("%d answered statuses were not delivered", lost))
	}
	w.forwards.end()
	ended(ctx, w.poll) // the instance says when it is stuck there
	w.inbox.want()
	w.discard(w.inbox.takeAll())
	return errors.Join(append(errs, w.instance.Close(ctx))...)
}

// Abandon refuses further jobs and gives up those that wait; the call that is being made goes
// on, and is not made again should its process end. It is for statuses that another server has newer ones of. Close it as ever.
func (w *Worker) Abandon() {
	w.jobs.close()
	left, _ := w.jobs.abandon()
	w.stopCalls()
	for _, j := range left {
		if j.done != nil {
			j.done(errClosed)
		}
	}
}

// mostOf returns a context that ends when three quarters of the time to the
// deadline of ctx have passed.
func mostOf(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/4))
}

// abandon gives up what is queued and returns how many statuses were lost.
func (w *Worker) abandon() int {
	lost := w.empty()
	if lost > 0 {
		w.lost.Add(uint64(lost))
		w.log.Warn("answered statuses could not be delivered to the module before the stop and are lost", "statuses", lost)
	}
	return lost
}

// leave is abandon for another process to go on with: nothing is lost.
func (w *Worker) leave() int {
	if left := w.empty(); left > 0 {
		w.log.Info("answered statuses wait in the state directory for the next start", "statuses", left)
	}
	return 0
}

// empty gives up what is queued and returns how many statuses that is.
func (w *Worker) empty() (statuses int) {
	left, statuses := w.jobs.abandon()
	for _, j := range left {
		if j.done != nil {
			j.done(errClosed)
		}
	}
	return statuses
}

var errClosed = errors.New("the worker of the module is closed")
