package observe

import "sync"

// Ring is a bounded stream: it keeps the newest entries, numbered from 1, and any
// number of readers follow it at their own pace. Writing never waits for them;
// a reader that is too slow finds that entries are gone.
type Ring[T any] struct {
	mu    sync.Mutex
	items []T
	next  uint64        // number of the next entry
	more  chan struct{} // closed by the next Put; nil: no reader waits
	limit int
}

// NewRing returns a ring of the given number of entries.
func NewRing[T any](limit int) *Ring[T] { return &Ring[T]{limit: max(1, limit), next: 1} }

// Put appends an entry that make builds from its number.
func (r *Ring[T]) Put(make func(number uint64) T) {
	r.mu.Lock()
	v := make(r.next)
	if len(r.items) < r.limit {
		r.items = append(r.items, v)
	} else {
		r.items[(r.next-1)%uint64(r.limit)] = v
	}
	r.next++
	more := r.more
	r.more = nil
	r.mu.Unlock()
	if more != nil {
		close(more)
	}
}

// Next is the number that the next entry will get.
func (r *Ring[T]) Next() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// Read appends to buf up to max entries from number from on. It returns them, the
// number to go on with, and how many entries at from were gone already.
func (r *Ring[T]) Read(from uint64, max int, buf []T) (out []T, next, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.next - uint64(len(r.items))
	if from < oldest {
		lost = oldest - from
		from = oldest
	}
	out = buf
	for ; from < r.next && max > 0; max-- {
		out = append(out, r.items[(from-1)%uint64(r.limit)])
		from++
	}
	return out, from, lost
}

// Wait returns a channel that is closed when there is an entry with a number of
// from or more.
func (r *Ring[T]) Wait(from uint64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.next {
		done := make(chan struct{})
		close(done)
		return done
	}
	if r.more == nil {
		r.more = make(chan struct{})
	}
	return r.more
}
