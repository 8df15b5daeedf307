package fleetapi

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
	"external-server/internal/httpapi"
	"external-server/internal/logging"
	"external-server/internal/module"
)

// Instance is the context of one (car, module). It fills module.Instance.
type Instance struct {
	kind *kind
	car  fleet.CarID
	log  *slog.Logger
	api  api
	host *host
	pool *Pool
	// leave gives the client and the host back to the pool.
	leave func()
	// local is the API inside this process, whose polls need no goroutine; nil:
	// it is elsewhere.
	local httpapi.API

	devices []fleet.Device // connected ones (MM-7); of the calling worker alone

	queue    *queue
	await    bool            // see Options.Await
	posting  context.Context // ends when Close gives up
	giveUp   context.CancelFunc
	posters  sync.WaitGroup
	closing  atomic.Bool
	counters counters

	// awaiting is the goroutine that waits for a spool in use elsewhere; stopAwaiting
	// is nil when there is none.
	awaiting     sync.WaitGroup
	stopAwaiting context.CancelFunc

	feed     atomic.Pointer[feed]
	flushed  atomic.Bool  // the start-up flush is done (REC-20)
	position atomic.Int64 // newest timestamp seen, ms; valid once flushed
	poll     poller       // of the polling goroutine alone

	limit logging.Limiter // of what devices and users of the API cause
}

var (
	_ module.Instance      = (*Instance)(nil)
	_ module.CommandSource = (*Instance)(nil)
	_ module.Positioned    = (*Instance)(nil)
)

func newInstance(m *Module, s settings, l link) *Instance {
	i := &Instance{
		kind:  m.kind,
		car:   s.car,
		log:   m.log,
		api:   l.api,
		host:  l.host,
		pool:  m.pool,
		leave: l.release,
		queue: newQueue(m.kind.number, m.opts.QueueSize, m.opts.QueueBytes, m.log),
		poll:  poller{guard: guard{guardSettings: s.guard}},
	}
	if s.url == "" {
		i.local = m.opts.API
	}
	i.await, i.queue.memoryOnly = m.opts.Await, m.opts.Await
	i.posting, i.giveUp = context.WithCancel(context.Background())
	return i
}

// awaitSpool begins to wait for the spool, until Close. It is called before the
// instance is used.
func (i *Instance) awaitSpool() {
	var ctx context.Context
	ctx, i.stopAwaiting = context.WithCancel(context.Background())
	i.awaiting.Go(func() { i.start(i.queue.await(ctx)) })
}

// callError is the error of an ABI call with the reason a C++ library would not
// tell.
func callError(op string, code int, format string, args ...any) error {
	return fmt.Errorf("%w: %w", &module.CallError{Op: op, Code: code}, fmt.Errorf(format, args...))
}

// DeviceConnected remembers the device, duplicates included (MM-7).
func (i *Instance) DeviceConnected(_ context.Context, device fleet.Device) error {
	i.devices = append(i.devices, device)
	return nil
}

// DeviceDisconnected forgets the first device equal in all five fields; none is
// NOT_OK (MM-7).
func (i *Instance) DeviceDisconnected(_ context.Context, _ fleet.DisconnectType, device fleet.Device) error {
	at := slices.Index(i.devices, device)
	if at < 0 {
		return callError("device_disconnected", module.CodeNotOK, "device %s is not connected", device)
	}
	i.devices = slices.Delete(i.devices, at, at+1)
	return nil
}

// CommandAck has no effect (MM-8).
func (i *Instance) CommandAck(context.Context, fleet.Command) error { return nil }

// ForwardStatus checks the status and queues it to be posted (MM-22, MM-32,
// MM-41). While the queue is full it waits until there is room or ctx ends. The
// errors of a post do not come back: a status is posted in the end, or its loss
// is counted and logged.
func (i *Instance) ForwardStatus(ctx context.Context, device fleet.Device, status []byte) error {
	return i.forward(ctx, "forward_status", device, status, false)
}

// ForwardError is ForwardStatus for error messages (MM-24, MM-32).
func (i *Instance) ForwardError(ctx context.Context, device fleet.Device, message []byte) error {
	return i.forward(ctx, "forward_error_message", device, message, true)
}

func (i *Instance) forward(ctx context.Context, op string, device fleet.Device, data []byte, isError bool) error {
	body, err := i.check(device, data, isError)
	if err != nil {
		i.counters.invalid.Add(1)
		if i.kind.reportsErrors {
			return callError(op, module.CodeNotOK, "%w", err)
		}
		// The fault is the car's, and the ABI's answer is OK.
		i.limit.Log(i.log, slog.LevelInfo, "what a device sent cannot be posted and is dropped",
			slog.String("car", i.car.Car), slog.String("device", device.String()), slog.String("call", op), slog.Any("error", err))
		return nil
	}
	start, err := i.queue.enqueue(ctx, entry{device: device, isError: isError, at: time.Now(), data: body})
	switch {
	case errors.Is(err, errQueueClosed):
		return callError(op, module.CodeContextIncorrect, "%w", err)
	case err != nil:
		return callError(op, module.CodeTimeoutOccurred, "the queue is full: %w", err)
	}
	i.start(start)
	if !i.await {
		return nil
	}
	if err := i.queue.emptied(ctx); err != nil {
		return callError(op, module.CodeTimeoutOccurred, "the HTTP API has not stored it yet: %w", err)
	}
	return nil
}

// check returns the compact JSON to post.
func (i *Instance) check(device fleet.Device, data []byte, isError bool) ([]byte, error) {
	check := i.kind.checkStatus
	if isError {
		check = i.kind.checkError
	}
	if i.kind.reportsErrors && !i.kind.supports(device.Type) { // MM-22
		return nil, fmt.Errorf("device type %d is not supported", device.Type)
	}
	v, err := parse(data)
	if err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(v); err != nil {
			return nil, err
		}
	}
	return compact(v)
}

// Close refuses further statuses and posts what is queued in nine tenths of the
// time to ctx's deadline; the rest is for the end. What remains is kept in the
// spool, or counted, logged and part of the error.
func (i *Instance) Close(ctx context.Context) error {
	if !i.closing.CompareAndSwap(false, true) {
		return nil
	}
	i.queue.refuseMore()
	if i.stopAwaiting != nil {
		i.stopAwaiting()
		i.awaiting.Wait() // it takes a last look: what is in memory only would be lost
	}
	done := make(chan struct{})
	go func() {
		i.posters.Wait()
		close(done)
	}()
	if i.queue.kept() && i.host.posting.mustWait() {
		i.giveUp() // nothing is lost by leaving it to the next run
	}
	posting := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		posting, cancel = context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/10))
		defer cancel()
	}
	var err error
	select {
	case <-done:
	case <-posting.Done():
		i.giveUp()
		select { // giving up takes no time unless the API inside the process hangs
		case <-done:
		case <-time.After(time.Second):
			err = module.ErrStuck
		}
	}
	i.giveUp()
	i.leave()
	kept, lost, cerr := i.queue.release()
	err = errors.Join(err, cerr)
	if kept > 0 {
		i.log.Info("statuses stay in the spool for the next run", "car", i.car.Car, "statuses", kept)
	}
	if i.await { // the caller was told that they were not taken
		lost = 0
	}
	if lost > 0 {
		i.counters.lost.Add(uint64(lost))
		i.log.Warn("accepted statuses could not be posted before the stop and are lost", "car", i.car.Car, "statuses", lost)
		err = errors.Join(err, fmt.Errorf("%d accepted statuses were not posted", lost))
	}
	return err
}
