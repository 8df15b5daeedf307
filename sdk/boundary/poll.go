package boundary

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// maxOverdue is how many waits that do not come back one answer to a ping names; the
// next one names others.
const maxOverdue = 16

// heldPolls are the polls that end with commands or with EndPoll.
type heldPolls struct {
	mu   sync.Mutex
	held map[uint32]*heldPoll // by context
}

// heldPoll is one poll; a poll that is not held uses its ctx only.
type heldPoll struct {
	ctx     context.Context
	cancel  context.CancelFunc
	id      uint64
	timeout time.Duration
	told    bool // the present wait is known to be overdue; guarded by heldPolls.mu

	waiting atomic.Pointer[func() time.Duration]
}

// pollKey finds the heldPoll in its context.
type pollKey struct{}

// begin is called for every poll, in the order of the frames.
func (p *heldPolls) begin(ctx context.Context, id uint64, poll *pb.Poll) *heldPoll {
	h := &heldPoll{ctx: ctx, id: id, timeout: time.Duration(poll.GetTimeoutMs()) * time.Millisecond}
	if !poll.GetHold() {
		return h
	}
	h.ctx, h.cancel = context.WithCancel(context.WithValue(ctx, pollKey{}, h))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[poll.GetContext()] = h
	return h
}

// done is called before the answer of the poll leaves.
func (p *heldPolls) done(poll *pb.Poll, h *heldPoll) {
	if h.cancel == nil {
		return
	}
	h.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[poll.GetContext()] == h {
		delete(p.held, poll.GetContext())
	}
}

// end ends the poll of the context that is held, if there is one.
func (p *heldPolls) end(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.held[id]; h != nil {
		h.cancel()
	}
}

// overdue names waits that exceed their timeout by more than patience, each once.
func (p *heldPolls) overdue(patience time.Duration) (found []*pb.Overdue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if patience == 0 { // a server that does not ask
		return nil
	}
	for _, h := range p.held {
		waiting := h.waiting.Load()
		if waiting == nil {
			continue
		}
		took := (*waiting)()
		switch {
		case took <= h.timeout+patience:
			h.told = false
		case !h.told && len(found) < maxOverdue:
			h.told = true
			found = append(found, &pb.Overdue{Id: h.id, WaitingMs: uint32(min(took.Milliseconds(), 1<<31))})
		}
	}
	return found
}

// A wait that brings nothing within quickWait was none; the pause after it keeps a
// module that ignores its timeout from spinning.
const (
	quickWait = time.Millisecond
	quickRest = 50 * time.Millisecond
)

// hold is a poll, in the way that the Context knows.
func hold(ctx context.Context, c Context, poll *pb.Poll, commands *Commands) error {
	h, ok := ctx.Value(pollKey{}).(*heldPoll)
	if !ok {
		return c.Poll(ctx, poll, commands)
	}
	if holder, ok := c.(Holder); ok {
		waiting := holder.Waiting
		h.waiting.Store(&waiting)
		err := c.Poll(ctx, poll, commands)
		if ctx.Err() != nil { // it was ended, perhaps before it began
			return nil
		}
		return err
	}
	once := &pb.Poll{Context: poll.GetContext(), TimeoutMs: poll.GetTimeoutMs()}
	for {
		start := time.Now()
		waiting := func() time.Duration { return time.Since(start) }
		h.waiting.Store(&waiting)
		err := c.Poll(ctx, once, commands)
		switch {
		case ctx.Err() != nil: // it was ended, perhaps before it began
			return nil
		case err != nil, commands.any():
			return err
		}
		if time.Since(start) < quickWait {
			h.waiting.Store(nil)
			rest := time.NewTimer(quickRest)
			select {
			case <-rest.C:
			case <-ctx.Done():
			}
			rest.Stop()
		}
	}
}
