package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"external-server/internal/cluster"
)

// silenceTick is how often a call that the broker holds up looks whether the broker has fallen silent.
const silenceTick = 20 * time.Millisecond

// answering returns a context that ends when the broker falls silent for this replica. A broker
// that is silent already is waited for: where it answers no replica, a shard is served by one of them.
func (p *clusterPart) answering(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.silent() {
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
				if err := p.Health(); errors.As(err, new(*cluster.NoBrokerError)) {
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

// witness tells the connection of each shard when the broker has answered over another one, and returns when it has
// answered last. probed is when it has answered over a connection that was made to ask it.
func (p *clusterPart) witness(probed time.Time) time.Time {
	newest, second := probed, time.Time{}
	var leader *shard // whose answer is the newest
	all := p.a.sessions.inService()
	for _, s := range all {
		state, ok := p.a.shards.StateOf(s.number)
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
