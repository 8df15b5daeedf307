package roster

import (
	"context"
	"sync"
)

// lastPollsShare of limits.stop_timeout_ms is waited for the last commands of the modules
// before the connections are left. With the defaults that is longer than a module waits.
const lastPollsShare = 3

// EndPolling ends the polls of all cars, which are served on, and waits for that, at most
// a third of limits.stop_timeout_ms.
func (r *Roster) EndPolling() { r.endPolling(func(*entry) bool { return true }) }

// EndPollingOf does so for the cars of a shard.
func (r *Roster) EndPollingOf(shard int) { r.endPolling(r.in(shard)) }

func (r *Roster) endPolling(which func(*entry) bool) {
	bound, cancel := context.WithTimeout(context.Background(), r.config().Limits.Stop/lastPollsShare)
	defer cancel()
	var polls sync.WaitGroup
	for _, e := range r.all(which) {
		polls.Go(func() { e.seat.EndPolling(bound) })
	}
	polls.Wait()
}

// in tells which cars are those of a shard.
func (r *Roster) in(shard int) func(*entry) bool {
	return func(e *entry) bool { return r.journals.Number(e.id) == shard }
}

// all are the cars that are served and that which is true of.
func (r *Roster) all(which func(*entry) bool) (out []*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if which(e) {
			out = append(out, e)
		}
	}
	return out
}

// Resuming tells whether statuses that an earlier process had accepted wait for a module.
func (r *Roster) Resuming() bool {
	return len(r.all(func(e *entry) bool { return e.seat.Resuming() })) > 0
}

// Record makes the cars of a shard write down their sessions if their journal has begun
// anew.
func (r *Roster) Record(shard int) {
	in := r.in(shard)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if in(e) {
			e.seat.Record()
		}
	}
}

// Settle notes of all cars, which are suspended, that what they were sent has reached the
// broker.
func (r *Roster) Settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		e.seat.AppendSettled()
	}
}
