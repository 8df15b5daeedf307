package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"external-server/internal/cluster"
)

// silenceTick is the pause between two looks of a call that the broker holds up at whether it answers.
const silenceTick = 20 * time.Millisecond

// answering returns a context that ends when the broker has been silent for so long that this replica gives its
// shards away. A broker that is silent already is waited for: where it answers no replica, a shard is
// served by one of them.
func (r *Replica) answering(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.silent() {
		return context.WithCancel(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(silenceTick)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				err := r.Health()
				if lost := new(*cluster.NoBrokerError); errors.As(err, lost) && time.Since((*lost).Since) >= r.timing.GiveAway {
					cancel(err)
				}
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// heldUp adds to an error that the broker has fallen silent meanwhile.
func heldUp(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && !errors.Is(err, cause) && errors.As(cause, new(*cluster.NoBrokerError)) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// heard notes that the broker has answered over a connection that was made to ask it something.
func (r *Replica) heard() {
	now := time.Now()
	r.heardAt.Store(&now)
}

// witness tells the connection of each shard when the broker has answered over another one, and returns when it has
// answered last. probed is when it has answered over one that belongs to none.
func (r *Replica) witness(probed time.Time) time.Time {
	newest, second := probed, time.Time{}
	var leader *shard // whose answer is the newest
	all := r.inService()
	for _, s := range all {
		state, ok := r.opts.Shards.StateOf(s.Number)
		if !ok {
			continue
		}
		for _, c := range state.Connections {
			switch {
			case c.Answered.After(newest):
				newest, second, leader = c.Answered, newest, s
			case c.Answered.After(second):
				second = c.Answered
			}
		}
	}
	for _, s := range all {
		if s == leader {
			s.link.Witness(second)
		} else {
			s.link.Witness(newest)
		}
	}
	return newest
}
