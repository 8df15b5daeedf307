package replica

import (
	"context"
	"sync"
	"time"

	"external-server/internal/cluster"
)

// inquiryHolds is for how long the answer of another replica counts whether the broker answers it.
const inquiryHolds = 500 * time.Millisecond

// inquiries ask other replicas whether the broker answers them, one question to each at a time. A replica
// that has no broker begins before it gives its shards away: one that does not answer costs it a
// second, and its cars wait.
type inquiries struct {
	ask func(ctx context.Context, address string) (peerShard, error)

	mu  sync.Mutex
	all map[string]*inquiry // by address
}

type inquiry struct {
	done  chan struct{} // closed when there is an answer, or none will come
	at    time.Time     // when that was
	state peerShard
	err   error
}

// answer returns what the replica at the address says, which may be inquiryHolds old.
func (q *inquiries) answer(ctx context.Context, address string) (peerShard, error) {
	q.mu.Lock()
	now := q.all[address]
	if now == nil || now.over() && time.Since(now.at) > inquiryHolds {
		now = &inquiry{done: make(chan struct{})}
		if q.all == nil {
			q.all = make(map[string]*inquiry)
		}
		q.all[address] = now
		q.mu.Unlock()
		now.state, now.err = q.ask(ctx, address)
		now.at = time.Now()
		close(now.done)
		return now.state, now.err
	}
	q.mu.Unlock()
	select {
	case <-now.done:
		return now.state, now.err
	case <-ctx.Done():
		return peerShard{}, context.Cause(ctx)
	}
}

func (i *inquiry) over() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

// forget drops what was asked: the members change, and their addresses.
func (q *inquiries) forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.all)
}

// inquire asks those that may get shards, beside the caller. work counts the questions.
func (r *Replica) inquire(ctx context.Context, work *sync.WaitGroup, view *cluster.View) {
	for _, m := range view.Members {
		if m.Name != r.self.Replica && m.State == cluster.StateReady {
			work.Go(func() { _, _ = r.inquiries.answer(ctx, m.Address) }) // it is there when it is needed
		}
	}
}
