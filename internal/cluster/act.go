package cluster

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// scoutQueue orders the writes of the scout's claim, as a shard's number does those of
// the shard's.
const scoutQueue = -1

// act does what the planner wants done.
func (r *runner) act(a Action) {
	switch a.Kind {
	case ActionPublish:
		r.say(a.Member)
		r.opts.Store.Publish(a.Member)
	case ActionScout, ActionNoScout:
		r.write(scoutQueue, a)
	case ActionClaim, ActionRelease, ActionMark, ActionRaise:
		r.write(a.Shard, a)
	case ActionAsk:
		r.call(askTime, func(ctx context.Context) Event {
			answer, err := r.opts.Host.Ask(ctx, a.Shard)
			return Event{Kind: EventAnswered, Shard: a.Shard, Answer: answer, Err: err}
		})
	case ActionOpen:
		begin := time.Now()
		r.call(openTime, func(ctx context.Context) Event {
			err := r.opts.Host.Open(ctx, a.Shard, a.Epoch)
			return Event{Kind: EventOpened, Shard: a.Shard, Err: r.opened(a, err, time.Since(begin))}
		})
	case ActionClose:
		r.call(openTime, func(ctx context.Context) Event {
			return Event{Kind: EventClosed, Shard: a.Shard, Err: r.closed(a, r.opts.Host.Close(ctx, a.Shard, a.To, a.Lost))}
		})
	}
}

// say tells the operator when this replica cannot serve, and when it can again.
func (r *runner) say(m Member) {
	switch {
	case m.State == StateUnhealthy && m.Reason != "" && !r.unwell:
		r.unwell = true
		r.opts.Log.Warn("this replica cannot serve and takes no more shards; it gives its own to the others unless that ends at once", "reason", m.Reason)
	case m.State == StateReady && r.unwell:
		r.unwell = false
		r.opts.Log.Info("this replica can serve again")
	}
}

// call runs something of the Host beside the loop.
func (r *runner) call(limit time.Duration, f func(context.Context) Event) {
	r.work.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, limit)
		defer cancel()
		ev := f(ctx)
		r.done <- func() { r.step(ev) }
	})
}

// write makes a write after those of the same shard.
func (r *runner) write(queue int, a Action) {
	r.waiting[queue] = append(r.waiting[queue], a)
	if len(r.waiting[queue]) == 1 {
		r.next(queue)
	}
}

// next makes the first write of a queue.
func (r *runner) next(queue int) {
	a := r.waiting[queue][0]
	r.work.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, writeTime)
		defer cancel()
		err := r.store(ctx, a)
		r.done <- func() {
			if r.waiting[queue] = r.waiting[queue][1:]; len(r.waiting[queue]) > 0 {
				r.next(queue)
			} else {
				delete(r.waiting, queue)
			}
			r.written(a, err)
		}
	})
}

func (r *runner) store(ctx context.Context, a Action) error {
	s := r.opts.Store
	switch a.Kind {
	case ActionClaim:
		return s.Claim(ctx, a.Shard, a.Base)
	case ActionRelease:
		return s.Release(ctx, a.Shard, a.Revision)
	case ActionMark:
		return s.Mark(ctx, a.Shard, a.Revision, a.State, a.To.Name)
	case ActionRaise:
		return s.Raise(ctx, a.Shard, a.Revision, a.Base)
	}
	return s.Scout(ctx, a.Kind == ActionScout)
}

// written tells the planner what became of a write.
func (r *runner) written(a Action, err error) {
	if err != nil {
		r.opts.Log.Debug("a write to etcd was not made", "what", a.String(), "reason", err)
	}
	switch a.Kind {
	case ActionClaim:
		r.step(Event{Kind: EventClaimed, Shard: a.Shard, OK: err == nil})
	case ActionRelease:
		r.step(Event{Kind: EventReleased, Shard: a.Shard, OK: err == nil})
	case ActionRaise:
		r.step(Event{Kind: EventRaised, Shard: a.Shard, OK: err == nil})
	}
}

// opened tells the operator what became of a shard.
func (r *runner) opened(a Action, err error, took time.Duration) error {
	log := r.opts.Log.With("shard", a.Shard, "epoch", a.Epoch)
	var stale *StaleError
	switch {
	case err == nil && a.Again:
		log.Info("the claim of a shard was taken again; its sessions went on")
		r.count(func(c *Counts) { c.Renewed++ })
	case err == nil && a.Promised:
		log.Info("shard taken over", "how", "handed over", "ms", took.Milliseconds())
		r.count(func(c *Counts) { c.Received++ })
	case err == nil:
		log.Info("shard taken over", "how", "without owner", "ms", took.Milliseconds())
		r.count(func(c *Counts) { c.Claims++ })
	case errors.As(err, &stale):
		log.Info("the broker, or the store of the HTTP API, knows a higher epoch of the shard", "known", stale.Known)
	case r.ctx.Err() == nil:
		log.Warn("a shard could not be opened; another replica takes it", "reason", err)
		r.count(func(c *Counts) { c.Failed++ })
	}
	return err
}

func (r *runner) closed(a Action, err error) error {
	log := r.opts.Log.With("shard", a.Shard)
	switch {
	case a.Lost:
		log.Warn("another replica serves the shard; this one is silent")
		r.count(func(c *Counts) { c.Lost++ })
	case errors.Is(err, ErrLeft):
		log.Warn("a shard could not be handed over nor be served on: its next owner goes on from the broker's records", "to", a.To.Name, "reason", err)
		return err
	case err != nil && a.To.Name != "":
		log.Warn("a shard was not handed over", "to", a.To.Name, "reason", err)
		return err
	case a.To.Name != "":
		log.Info("shard handed over", "to", a.To.Name)
		r.count(func(c *Counts) { c.Given++ })
	default:
		log.Log(r.ctx, slog.LevelInfo, "shard suspended for whichever replica serves it next")
	}
	if err != nil {
		log.Warn("a shard did not end as it should", "reason", err)
	}
	return err
}

func (r *runner) count(f func(*Counts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.counts)
}
