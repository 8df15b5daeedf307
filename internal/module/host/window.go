package host

import (
	"context"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

var _ module.Forwarder = (*instance)(nil)

const (
	// maxWindow is how many statuses of a context are in its process at a time. At one
	// hand-over per millisecond it is the rate at which a car can report, in thousands.
	maxWindow = 64
	// maxWindowBytes bounds them, and maxWindowStatus those among them.
	maxWindowBytes  = 1 << 20
	maxWindowStatus = 64 << 10
	// windowTime is how long the calls of a window may take together, as far as one can
	// tell from those before: what was handed over cannot be taken back when the server
	// stops, and is called again by the next process if that is not waited for.
	windowTime = 100 * time.Millisecond
)

// window is the statuses of one context that were handed to the process without waiting
// for the one before, oldest first. The process makes one call at a time and answers it
// before the next, so all but the first have not begun when it ends. The context keeps the
// lane Calling while there are any. The fields are guarded by instance.mu.
type window struct {
	calls []*handed
	bytes int
	again bool          // they are handed over again; nothing is added
	took  time.Duration // one call, on average
}

// full tells whether no further status of the size is to be handed over.
func (w *window) full(bytes int) bool {
	n := len(w.calls)
	return n >= maxWindow || w.bytes+bytes > maxWindowBytes || n > 0 && w.took*time.Duration(n+1) > windowTime
}

// tookOne takes note of how long a call took.
func (w *window) tookOne(d time.Duration) {
	if w.took == 0 {
		w.took = d
	}
	w.took += (d - w.took) / 4
}

// handed is one status in the window.
type handed struct {
	pending
	device fleet.Device
	data   []byte
	ctx    context.Context // of another hand-over
	done   func(error)
	result *pb.Result // nil: not answered
}

// Forward implements module.Forwarder: the status leaves with others at most a
// millisecond later. When the process ends, the first one without answer is handed over
// again, as by ForwardStatus, and those behind it for the first time.
func (i *instance) Forward(ctx context.Context, device fleet.Device, status []byte, done func(error)) bool {
	if device.Role == "" || len(status) > maxWindowStatus {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	c, w := i.at, &i.window
	if c == nil || !c.ordered || c.isDead() || w.again || w.full(len(status)) {
		return false
	}
	if len(w.calls) == 0 && !i.gate.Try(module.Calling, "forward_status") {
		return false
	}
	h := &handed{device: device, data: status, ctx: ctx, done: done}
	h.pending = pending{op: "forward_status", car: i.spec.Car.Car, limit: i.m.opts.CallTimeout, behind: len(w.calls) > 0,
		answered: func(result *pb.Result) { i.answered(c, h, result) }, release: i.handAgain}
	if !c.hand(&pb.ServerFrame{Kind: &pb.ServerFrame_Call{Call: i.statusCall(h)}}, &h.pending) {
		if len(w.calls) == 0 {
			i.gate.Leave(module.Calling)
		}
		return false
	}
	w.calls = append(w.calls, h)
	w.bytes += len(status)
	return true
}

func (i *instance) statusCall(h *handed) *pb.Call {
	return &pb.Call{Context: i.id, Function: pb.Call_FORWARD_STATUS, Device: toDevice(h.device), Data: h.data}
}

// answered is called by the goroutine that reads what the process sends. A module that
// answers in another order is believed, but its answers count in this one.
func (i *instance) answered(c *child, h *handed, result *pb.Result) {
	i.mu.Lock()
	h.result = result
	for {
		first := i.window.first()
		if first == nil || first.result == nil {
			i.mu.Unlock()
			return
		}
		i.window.remove()
		i.window.tookOne(time.Since(first.since))
		if next := i.window.first(); next != nil {
			c.begun(&next.pending)
		} else {
			i.gate.Leave(module.Calling)
		}
		i.mu.Unlock()
		first.done(callError(first.op, first.result))
		i.mu.Lock()
	}
}

func (w *window) first() *handed {
	if len(w.calls) == 0 {
		return nil
	}
	return w.calls[0]
}

func (w *window) remove() {
	w.bytes -= len(w.calls[0].data)
	w.calls[0] = nil
	if w.calls = w.calls[1:]; len(w.calls) == 0 {
		w.calls = nil
	}
}

// handAgain is called when the process has ended with a status of the window unanswered.
func (i *instance) handAgain() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.window.again || len(i.window.calls) == 0 {
		return
	}
	i.window.again = true
	i.m.work.Go(func() { i.handOverAgain() }) // Close of the module waits for the process, which waits for this function
}

func (i *instance) handOverAgain() {
	i.gate.Leave(module.Calling)
	for delivery := 2; ; {
		i.mu.Lock()
		h := i.window.first()
		i.mu.Unlock()
		var err error
		if h.result != nil {
			err = callError(h.op, h.result)
		} else {
			err = i.deliver(h.ctx, h.op, i.statusCall(h), h.device, delivery)
			delivery = 1
		}
		i.mu.Lock()
		i.window.remove()
		last := i.window.first() == nil
		if last {
			i.window.again = false
		}
		i.mu.Unlock()
		h.done(err)
		if last {
			return
		}
	}
}
