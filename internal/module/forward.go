package module

import (
	"context"
	"errors"
	"sync"
	"time"
)

// forwards are the statuses that a Forwarder has under way. No goroutine of the worker
// waits for them: what comes next is handed over by the caller of Begin, or by the
// goroutine that brings the results.
type forwards struct {
	to      Forwarder       // nil: the instance is none
	forward func(*job) bool // of handOver
	done    func(error)     // of Forward

	mu    sync.Mutex // held while a result is dealt with
	ended bool
	call  Call // of Called
}

func (f *forwards) init(w *Worker) {
	var ok bool
	if f.to, ok = w.instance.(Forwarder); !ok {
		return
	}
	f.done = w.statusDone
	f.forward = func(j *job) bool {
		if p := w.opts.Permit; p != nil && !p.Granted() {
			return false
		}
		if w.opts.Called != nil {
			j.begun = time.Now()
		}
		return f.to.Forward(w.callCtx, j.device, j.data, f.done)
	}
}

// handOver reports true when the caller has to begin the goroutine that makes calls, or
// is it.
func (f *forwards) handOver(w *Worker) bool {
	return f.to == nil || w.jobs.handOver(f.forward)
}

// statusDone deals with the result of the oldest status under way.
func (w *Worker) statusDone(err error) {
	if w.settle(err) && w.forwards.handOver(w) {
		go w.makeCalls()
	}
}

// settle reports false when the worker is closed.
func (w *Worker) settle(err error) bool {
	f := &w.forwards
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	j := w.jobs.oldest()
	if j == nil { // abandoned, and counted
		return true
	}
	if w.opts.Called != nil {
		now := time.Now()
		f.call = Call{Kind: CallStatus, Device: j.device, At: now, Wait: j.begun.Sub(j.at), Took: now.Sub(j.begun), Err: err}
		w.opts.Called(&f.call)
		f.call = Call{}
	}
	w.forwarded(j, err)
	taken := !errors.Is(err, context.Canceled)
	if taken && w.opts.Confirmed != nil {
		w.opts.Confirmed(j.number)
	}
	if w.jobs.end() && !taken {
		w.lost.Add(1)
	}
	return true
}

// end returns when no result is being dealt with, and none will be.
func (f *forwards) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
}
