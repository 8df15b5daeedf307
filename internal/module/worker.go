package module

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	CommandQueue int           // fetched commands that wait for the car, default 1000
	BackoffMin   time.Duration // after a failed wait_for_command (DEF-24), default 100 ms
	BackoffMax   time.Duration // default 5 s
	// Notify is called, from the poller's goroutine, when commands were fetched.
	// It must not block.
	Notify func()
}

// WorkerStats counts what a worker has done since it was made.
type WorkerStats struct {
	Queued            int       // jobs waiting, the running one included
	OldestQueued      time.Time // when the oldest of them was queued, zero: none
	Statuses          uint64    // forward_status calls that returned OK
	Errors            uint64    // calls of any kind that failed
	Lost              uint64    // statuses that were accepted and never delivered
	CommandsFetched   uint64
	CommandsDiscarded uint64 // stale ones (DEV-3) and those that found the queue full
}

// Worker feeds one Instance: a goroutine makes the calls in the order they were
// queued, another one polls for commands (REC-8, CMD-1). No method but Close
// and Run blocks.
type Worker struct {
	instance Instance
	number   int32
	opts     WorkerOptions
	log      *slog.Logger
	jobs     *jobs

	mu       sync.Mutex
	commands []fleet.Command

	statuses, errs, lost, fetched, discarded atomic.Uint64

	limit logging.Limiter

	running  atomic.Bool
	stopPoll context.CancelFunc
	pollCtx  context.Context
	calls    chan struct{} // closed when the calling goroutine has ended
	poll     chan struct{} // closed when the poller has ended
}

// NewWorker takes ownership of the instance. number is the module's.
func NewWorker(instance Instance, number int32, opts WorkerOptions) *Worker {
	if opts.QueueSize <= 0 {
		opts.QueueSize = 1000
	}
	if opts.CommandQueue <= 0 {
		opts.CommandQueue = 1000
	}
	if opts.BackoffMin <= 0 {
		opts.BackoffMin = 100 * time.Millisecond
	}
	if opts.BackoffMax <= 0 {
		opts.BackoffMax = 5 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Notify == nil {
		opts.Notify = func() {}
	}
	w := &Worker{
		instance: instance,
		number:   number,
		opts:     opts,
		log:      opts.Logger.With(logging.ComponentKey, logging.ComponentModule, "module", number),
		jobs:     newJobs(opts.QueueSize),
		calls:    make(chan struct{}),
		poll:     make(chan struct{}),
	}
	w.pollCtx, w.stopPoll = context.WithCancel(context.Background())
	return w
}

// Run makes the calls until Close has drained the queue or ctx ends. A call that
// is stuck in the module beyond that keeps its goroutine; Run returns without
// it, because nothing can end a call inside a C library (MOD-15).
func (w *Worker) Run(ctx context.Context) {
	if !w.running.CompareAndSwap(false, true) {
		return
	}
	go w.pollCommands()
	go w.makeCalls(ctx)
	select {
	case <-w.calls:
	case <-ctx.Done():
	}
	w.stopPoll()
	select {
	case <-w.poll:
	case <-ctx.Done():
	}
}

// DeviceConnected queues device_connected. done gets the result on the worker's
// goroutine. It reports false when the worker is closed.
func (w *Worker) DeviceConnected(device fleet.Device, done func(error)) bool {
	return w.jobs.put(job{kind: jobConnected, device: device, done: done, at: time.Now()})
}

// ForwardStatus queues forward_status and, if message is not empty,
// forward_error_message right after it (STAT-30). The worker owns the slices. It
// reports false when the queue is full or the worker is closed.
func (w *Worker) ForwardStatus(device fleet.Device, data, message []byte) bool {
	return w.jobs.put(job{kind: jobStatus, device: device, data: data, message: message, at: time.Now()})
}

// DeviceDisconnected queues device_disconnected.
func (w *Worker) DeviceDisconnected(kind fleet.DisconnectType, device fleet.Device) bool {
	return w.jobs.put(job{kind: jobDisconnected, device: device, kindGone: kind, at: time.Now()})
}

// CommandAck queues command_ack; it reports false when as many acknowledgements
// as the queue may hold statuses wait already.
func (w *Worker) CommandAck(command fleet.Command) bool {
	return w.jobs.put(job{kind: jobAck, device: command.Device, data: command.Data, at: time.Now()})
}

// Free tells how many more statuses the queue takes.
func (w *Worker) Free() int { return w.jobs.free() }

// TakeCommands returns and removes the fetched commands, oldest first.
func (w *Worker) TakeCommands() []fleet.Command {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.commands
	w.commands = nil
	return out
}

// DiscardCommands forgets fetched commands that nobody took (DEV-3) and returns
// how many they were.
func (w *Worker) DiscardCommands() int {
	n := len(w.TakeCommands())
	w.discarded.Add(uint64(n))
	return n
}

// Stats may be called at any time.
func (w *Worker) Stats() WorkerStats {
	n, oldest := w.jobs.depth()
	return WorkerStats{
		Queued:            n,
		OldestQueued:      oldest,
		Statuses:          w.statuses.Load(),
		Errors:            w.errs.Load(),
		Lost:              w.lost.Load(),
		CommandsFetched:   w.fetched.Load(),
		CommandsDiscarded: w.discarded.Load(),
	}
}

// Close refuses further jobs, lets the instance have what was accepted, ends the
// poller and closes the instance, all before ctx ends. What could not be
// delivered is counted, logged and part of the error.
func (w *Worker) Close(ctx context.Context) error {
	w.jobs.close()
	w.stopPoll()
	if w.running.CompareAndSwap(false, true) { // Run was never called
		close(w.calls)
		close(w.poll)
	}
	var err error
	select {
	case <-w.calls:
	case <-ctx.Done():
		err = fmt.Errorf("calls were not finished: %w", ErrStuck)
	}
	if lost := w.countLost(); lost > 0 {
		w.log.Warn("answered statuses could not be delivered to the module before the stop and are lost", "statuses", lost)
		err = errors.Join(err, fmt.Errorf("%d answered statuses were not delivered", lost))
	}
	select {
	case <-w.poll:
	case <-ctx.Done():
	}
	return errors.Join(err, w.instance.Close(ctx))
}

func (w *Worker) countLost() int {
	lost := 0
	for _, j := range w.jobs.abandon() {
		switch j.kind {
		case jobStatus:
			lost++
		case jobConnected:
			j.done(errClosed)
		}
	}
	w.lost.Add(uint64(lost))
	return lost
}

var errClosed = errors.New("the worker of the module is closed")

// makeCalls is the one goroutine that calls the instance (MOD-5).
func (w *Worker) makeCalls(ctx context.Context) {
	defer close(w.calls)
	for {
		j, ok := w.jobs.first()
		if ok {
			w.call(ctx, &j)
			if ctx.Err() != nil {
				return // Close has abandoned the queue
			}
			w.jobs.removeFirst()
			continue
		}
		if w.jobs.finished() {
			return
		}
		select {
		case <-w.jobs.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (w *Worker) call(ctx context.Context, j *job) {
	switch j.kind {
	case jobConnected:
		err := w.guard("device_connected", func() error { return w.instance.DeviceConnected(ctx, j.device) })
		w.failed(slog.LevelError, "module refused the device", j.device, err)
		j.done(err)
	case jobStatus:
		err := w.guard("forward_status", func() error { return w.instance.ForwardStatus(ctx, j.device, j.data) })
		if err == nil {
			w.statuses.Add(1)
		}
		w.failed(slog.LevelError, "module did not take the status", j.device, err)
		if len(j.message) > 0 { // whatever forward_status said (STAT-31)
			err := w.guard("forward_error_message", func() error { return w.instance.ForwardError(ctx, j.device, j.message) })
			w.failed(slog.LevelError, "module did not take the error message", j.device, err)
		}
	case jobDisconnected:
		err := w.guard("device_disconnected", func() error { return w.instance.DeviceDisconnected(ctx, j.kindGone, j.device) })
		var code *CallError
		if errors.As(err, &code) && code.Code == CodeNotOK { // MOD-13
			w.failed(slog.LevelWarn, "device is not among the module's connected devices", j.device, err)
		} else {
			w.failed(slog.LevelError, "module failed to disconnect the device", j.device, err)
		}
	case jobAck:
		err := w.guard("command_ack", func() error {
			return w.instance.CommandAck(ctx, fleet.Command{Device: j.device, Data: j.data})
		})
		w.failed(slog.LevelError, "module did not take the acknowledgement", j.device, err)
	}
}

// guard turns a panic of a module written in Go into an error.
func (w *Worker) guard(op string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked: %v", op, p)
		}
	}()
	return f()
}

func (w *Worker) failed(level slog.Level, text string, device fleet.Device, err error) {
	if err == nil {
		return
	}
	w.errs.Add(1)
	w.limit.Log(w.log, level, text, slog.Any("device", device), slog.Any("error", err))
}

// pollCommands is the goroutine that waits for commands (CMD-1). It is the only
// caller of WaitCommands, and with it of pop_command (MOD-6).
func (w *Worker) pollCommands() {
	defer close(w.poll)
	backoff := w.opts.BackoffMin
	for w.pollCtx.Err() == nil {
		var commands []fleet.Command
		err := w.guard("wait_for_command", func() (err error) {
			commands, err = w.instance.WaitCommands(w.pollCtx)
			return err
		})
		if len(commands) > 0 {
			w.fetched.Add(uint64(len(commands)))
			w.queueCommands(commands)
			w.opts.Notify()
		}
		if err == nil {
			backoff = w.opts.BackoffMin
			continue
		}
		if w.pollCtx.Err() != nil {
			return
		}
		w.failed(slog.LevelError, "module failed to wait for commands, trying again", fleet.Device{Module: w.number}, err)
		if !w.pause(backoff/2 + rand.N(backoff)/2) {
			return
		}
		backoff = min(2*backoff, w.opts.BackoffMax) // DEF-24
	}
}

func (w *Worker) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.pollCtx.Done():
		return false
	}
}

func (w *Worker) queueCommands(commands []fleet.Command) {
	w.mu.Lock()
	w.commands = append(w.commands, commands...)
	over := len(w.commands) - w.opts.CommandQueue
	if over > 0 { // REC-22: the oldest give way
		w.commands = append([]fleet.Command(nil), w.commands[over:]...)
	}
	w.mu.Unlock()
	if over > 0 {
		w.discarded.Add(uint64(over))
		w.log.Warn("too many commands wait, the oldest are dropped", "commands", over, "limit", w.opts.CommandQueue)
	}
}
