package boundary

import (
	"context"
	"errors"
	"sync"
	"time"

	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// lane is one context with the calls that wait for it. They are made one at a time, in
// the order of their frames.
type lane struct {
	context Context

	// Guarded by runs.mu.
	waiting []*pb.ServerFrame
	since   time.Time // when it became ready
	busy    bool      // a runner has it

	answered uint64 // of the runner: where its last answer ends in the stream
}

// runs are the calls to be made. One goroutine, a runner, makes the calls of all
// contexts, one after the other: calls of most modules take less time than the start of
// a goroutine on another processor. A call that has waited for patience is made beside the
// one that keeps it waiting. Answers leave together when no call is left to be made.
type runs struct {
	mu      sync.Mutex
	ready   []*lane // with calls that wait and without runner
	runners int
	moved   time.Time // when a runner took its last call
	timer   *time.Timer
	timed   bool
	closed  bool
	late    func() // is called after patience while calls or answers wait
}

// patience is how long a call waits for that of another context, and an answer for
// others.
const patience = time.Millisecond

// add queues the call of the frame.
func (r *runs) add(l *lane, frame *pb.ServerFrame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.waiting = append(l.waiting, frame)
	if !l.busy && len(l.waiting) == 1 {
		l.since = time.Now()
		r.ready = append(r.ready, l)
	}
}

// begin tells whether a runner is needed for what was added; it counts as there.
func (r *runs) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ready) == 0 {
		return false
	}
	if r.runners == 0 || time.Since(r.moved) > patience {
		r.runners++
		r.moved = time.Now()
		return true
	}
	r.watch()
	return false
}

// watch has late called in a while. mu is held.
func (r *runs) watch() {
	if r.timed || r.closed {
		return
	}
	r.timed = true
	if r.timer == nil {
		r.timer = time.AfterFunc(patience, r.late)
	} else {
		r.timer.Reset(patience)
	}
}

// next returns the next call and its lane; without one the runner is gone.
func (r *runs) next(done *lane) (*lane, *pb.ServerFrame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if done != nil {
		done.busy = false
		if len(done.waiting) > 0 {
			done.since = time.Now()
			r.ready = append(r.ready, done)
		}
	}
	if len(r.ready) == 0 {
		r.runners--
		r.ready = nil
		if r.runners == 0 && r.timed && r.timer.Stop() {
			r.timed = false
		}
		return nil, nil
	}
	l := r.ready[0]
	r.ready[0] = nil
	r.ready = r.ready[1:]
	frame := l.waiting[0]
	l.waiting[0] = nil
	if l.waiting = l.waiting[1:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	l.busy = true
	r.moved = time.Now()
	r.watch()
	return l, frame
}

// overdue returns how many runners are needed for calls that have waited too long; they
// count as there.
func (r *runs) overdue() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timed = false
	for _, l := range r.ready {
		if time.Since(l.since) < patience {
			break
		}
		n++
	}
	r.runners += n
	if len(r.ready) > n {
		r.watch()
	}
	return n
}

func (r *runs) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// run begins to make what the frames have asked for that were read together.
func (s *side) run(ctx context.Context) {
	if s.runs.begin() {
		s.calls.Go(func() { s.makeCalls(ctx) })
	}
}

// late begins the calls that wait for others, and sends the answers that do.
func (s *side) late(ctx context.Context) {
	for range s.runs.overdue() {
		s.calls.Go(func() { s.makeCalls(ctx) })
	}
	_ = s.conn.FlushAll() // a broken connection ends Serve
}

// makeCalls is a runner.
func (s *side) makeCalls(ctx context.Context) {
	var l *lane
	var frame *pb.ServerFrame
	for {
		if l, frame = s.runs.next(l); l == nil {
			_ = s.conn.FlushAll()
			return
		}
		// Should the process end in this call, the server knows of the one before.
		if s.conn.Flush(l.answered) != nil {
			continue // it would not: the connection broke, which ends Serve
		}
		result := s.perform(ctx, frame)
		place, err := s.conn.Append(&pb.ModuleFrame{Id: frame.GetId(), Kind: &pb.ModuleFrame_Result{Result: result}})
		if errors.Is(err, ErrFrame) {
			s.answer(frame, result)
			continue
		}
		l.answered = place
	}
}
