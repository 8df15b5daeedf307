package module

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"external-server/internal/fleet"
)

// makeCalls is the goroutine that calls the instance as long as there are jobs that
// need one; there is one at most (MOD-5).
func (w *Worker) makeCalls() {
	for w.forwards.handOver(w) {
		j, ok := w.jobs.begin()
		if !ok {
			return
		}
		if !w.permitted(&j) {
			if w.jobs.end() && j.kind == jobStatus && w.opts.Confirmed == nil {
				w.lost.Add(1)
			}
			continue
		}
		var handedOver func()
		if j.again && w.opts.Begins != nil {
			handedOver = w.opts.Begins(j.number)
		}
		taken := w.call(&j)
		if taken && j.kind == jobStatus && w.opts.Confirmed != nil {
			w.opts.Confirmed(j.number)
		}
		if handedOver != nil {
			handedOver()
		}
		if w.jobs.end() && !taken { // what was abandoned is counted already
			w.lost.Add(1)
		}
	}
}

// Begin starts the calls that QueueStatus has left to its caller.
func (w *Worker) Begin() {
	if w.forwards.handOver(w) {
		go w.makeCalls()
	}
}

// put queues a job and begins the calls if need be.
func (w *Worker) put(j job) bool {
	ok, begin := w.jobs.put(j)
	if begin {
		w.Begin()
	}
	return ok
}

// call makes the call of a job. It reports false for a status that the instance
// did not take because the worker stops.
func (w *Worker) call(j *job) (taken bool) {
	ctx := w.callCtx
	switch j.kind {
	case jobConnected:
		if err := w.askType(j); err != nil {
			j.done(err)
			break
		}
		w.beforeConnect()
		err := w.timed(CallConnected, j, func() error { return w.instance.DeviceConnected(ctx, j.device) })
		w.afterConnect(j.device, err)
		w.failed(slog.LevelError, "module refused the device", j.device, err)
		j.done(err)
	case jobAskType:
		j.done(w.askType(j))
	case jobStatus:
		err := w.timed(CallStatus, j, func() error { return w.instance.ForwardStatus(ctx, j.device, j.data) })
		w.forwarded(j, err)
		if len(j.message) > 0 { // whatever forward_status said (STAT-31)
			err := w.timed(CallErrorText, j, func() error { return w.instance.ForwardError(ctx, j.device, j.message) })
			w.failed(slog.LevelError, "module did not take the error message", j.device, err)
		}
		return !errors.Is(err, context.Canceled)
	case jobDisconnected:
		err := w.timed(CallDisconnected, j, func() error { return w.instance.DeviceDisconnected(ctx, j.kindGone, j.device) })
		w.afterDisconnect(j.device)
		var code *CallError
		if errors.As(err, &code) && code.Code == CodeNotOK { // MOD-13
			w.failed(slog.LevelWarn, "device is not among the module's connected devices", j.device, err)
		} else {
			w.failed(slog.LevelError, "module failed to disconnect the device", j.device, err)
		}
	case jobAck:
		err := w.timed(CallAck, j, func() error {
			return w.instance.CommandAck(ctx, fleet.Command{Device: j.device, Data: j.data})
		})
		w.failed(slog.LevelError, "module did not take the acknowledgement", j.device, err)
	}
	return true
}

// forwarded counts what forward_status has answered.
func (w *Worker) forwarded(j *job, err error) {
	switch {
	case err == nil:
		w.statuses.Add(1)
	case errors.Is(err, ErrNotDelivered):
		w.lost.Add(1)
	}
	w.failed(slog.LevelError, "module did not take the status", j.device, err)
}

// askType asks whether the module serves the type of the job's device. A panic of
// the module counts as no.
func (w *Worker) askType(j *job) error {
	err := guard("is_device_type_supported", func() error {
		if !w.opts.Supports(j.device.Type) {
			return ErrUnsupportedType
		}
		return nil
	})
	if !errors.Is(err, ErrUnsupportedType) {
		w.failed(slog.LevelError, "module could not be asked about a device type", j.device, err)
	}
	return err
}

// guard turns a panic of a module written in Go into an error.
func guard(op string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked: %v", op, p)
		}
	}()
	return f()
}

// failed counts an error and logs it, limited per kind: a broken module fails
// with every status.
func (w *Worker) failed(level slog.Level, text string, device fleet.Device, err error) {
	if err == nil {
		return
	}
	w.errs.Add(1)
	attrs := []slog.Attr{slog.Any("device", device), slog.Any("error", err)}
	if device == (fleet.Device{Module: w.number}) { // a call that is about no device
		attrs = attrs[1:]
	}
	w.limit.Log(w.log, level, text, attrs...)
}
