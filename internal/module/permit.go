package module

import "context"

// Permit tells whether an instance may be called: not when another server may have the car. Its methods may be called
// from any goroutine.
type Permit interface {
	// Granted returns at once.
	Granted() bool
	// Wait returns nil when calls may be made, or the error of ctx.
	Wait(ctx context.Context) error
}

// permitted waits until the job's call may be made. False: it is not made any more.
func (w *Worker) permitted(j *job) bool {
	p := w.opts.Permit
	if p == nil || p.Granted() {
		return true
	}
	if p.Wait(w.permitCtx) == nil && w.jobs.oldest() != nil { // else it was abandoned meanwhile
		return true
	}
	if j.done != nil {
		j.done(errClosed)
	}
	return false
}
