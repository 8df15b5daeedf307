package fence

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"external-server/internal/link"
)

// maxClaims bounds the own epochs that are remembered. The oldest one counts for nothing
// then, and the shard is taken over from the records should the broker still have it.
const maxClaims = 64

// Standing knows the epochs under which no other replica has served the sessions that an owner
// has. A claim alone does not prove that: another replica may have served the shard between two
// claims of the same owner. The sessions of this owner are outdated then, although its new epoch
// is the highest (RES-25).
type Standing struct {
	mu     sync.Mutex
	own    Epoch
	until  int64
	claims []int64 // own epochs that the broker may have, rising
}

// NewStanding returns the Standing of an owner with the epoch own. until is the epoch of the
// owner that has left the sessions; after Seize that is the owner itself.
func NewStanding(own Epoch, until int64) *Standing {
	return &Standing{own: own, until: until, claims: []int64{own.Epoch}}
}

// Claim says that the owner serves on under another, higher epoch.
func (s *Standing) Claim(epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own.Epoch, s.own.TakenBack = epoch, 0
	if len(s.claims) == maxClaims {
		s.claims = slices.Delete(s.claims, 0, 1)
	}
	s.claims = append(s.claims, epoch)
}

// TakeBack says that the owner serves on what it has handed over, see Epoch.TakenBack.
func (s *Standing) TakeBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own.TakenBack++
}

// Epoch returns the newest claim.
func (s *Standing) Epoch() Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own
}

// permits tells whether the owner may serve the shard when the broker has the epoch e. An
// error is link.ErrFenced.
func (s *Standing) permits(e Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.Index(s.claims, e.Epoch)
	switch {
	case at >= 0 && e.Replica == s.own.Replica: // told over its connection, so no other replica has had it since
		s.until, s.claims = e.Epoch, slices.Delete(s.claims, 0, at)
		return nil
	case at >= 0 && e.Epoch > s.until || e.Epoch == s.own.Epoch: // etcd gives no number twice
		return fmt.Errorf("%w: replica %q claims epoch %d too, two clusters use the name %q at this broker or etcd was made anew", link.ErrFenced, e.Replica, e.Epoch, s.own.Replica)
	case e.Epoch <= s.until:
		return nil
	}
	if e.Shards != 0 && s.own.Shards != 0 && e.Shards != s.own.Shards {
		return fmt.Errorf("%w: %w", link.ErrFenced, &ShardsError{Replica: e.Replica, Shards: e.Shards, Own: s.own.Shards})
	}
	return fmt.Errorf("%w: replica %q with epoch %d, this one has %d and the sessions of %d", link.ErrFenced, e.Replica, e.Epoch, s.own.Epoch, s.until)
}

// MayConnect returns the function of that name of mqtt.Sessions for an owner: an error that is
// link.ErrFenced means that another replica has served the shard.
func MayConnect(b Broker, cluster string, of func(shard int) *Standing) func(context.Context, int) error {
	return func(ctx context.Context, shard int) error {
		e, found, err := Read(ctx, b, cluster, shard)
		if err != nil {
			return err
		}
		if found {
			return of(shard).permits(e)
		}
		return nil
	}
}
