package replica

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// proofHolds is for how long a sign of the broker counts that a connection is its shard's.
const proofHolds = time.Second

// permit tells whether the modules of a shard may be called. The broker keeps an old owner from the cars, and
// nothing keeps it from its modules: one that stood still goes on with what it had read before it hears that another
// replica has the shard. So modules are called while the lease lasts under which the shard was claimed, which no other
// replica takes over before; and after that, because a shard is served also without etcd, as long as the broker says that
// the connection is still the shard's.
type permit struct {
	shard  int
	log    *slog.Logger
	lease  func() (id int64, until time.Time)
	broker interface {
		Prove()
		Proved() time.Time
	}
	own atomic.Int64 // the lease of the claim
}

// permit returns that of a shard that was claimed under the lease; serveShard says which link it has.
func (r *Replica) permit(n int, lease int64) *permit {
	out := &permit{shard: n, log: r.log, lease: r.cluster.Lease}
	out.own.Store(lease)
	return out
}

// Granted implements module.Permit.
func (p *permit) Granted() bool {
	now := time.Now()
	if id, until := p.lease(); id == p.own.Load() && now.Before(until) {
		return true
	}
	age := now.Sub(p.broker.Proved())
	if age > proofHolds/2 {
		p.broker.Prove()
	}
	return age < proofHolds
}

// Wait implements module.Permit.
func (p *permit) Wait(ctx context.Context) error {
	begun, told := time.Now(), false
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if p.Granted() {
			return nil
		}
		if !told && time.Since(begun) > proofHolds {
			told = true
			p.log.Debug("modules wait: the lease has ended and the broker has not said that this server has the shard still", "shard", p.shard)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
