package cluster

import (
	"context"
	"time"
)

// Store keeps the registry. Package cluster/etcd is the one in service. Writes return
// when etcd has them, and the registry has them too then.
type Store interface {
	// Run keeps this replica a member, its lease alive and the registry up to date, until
	// the context ends; it gives the lease back then. An error before that says that this
	// replica can never be a member of this cluster.
	Run(ctx context.Context) error
	// Status returns what is known now. Changed is closed when there is something newer.
	Status() Status
	// Publish changes State, Reason and Refuses of this replica's member, soon.
	Publish(m Member)
	// Claim claims a shard for this replica if there is no claim.
	Claim(ctx context.Context, shard int, base int64) error
	// Release deletes the claim if it is that of this replica with this revision.
	Release(ctx context.Context, shard int, revision int64) error
	// Mark changes what is done with a shard that this replica has claimed; to may be empty.
	Mark(ctx context.Context, shard int, revision int64, state, to string) error
	// Raise adds to the epoch of a shard that this replica has claimed.
	Raise(ctx context.Context, shard int, revision, base int64) error
	// Scout claims the scout's role, or gives it up.
	Scout(ctx context.Context, claim bool) error
}

// Status is what a Store knows at one moment.
type Status struct {
	Registry *Registry     // nil: not read yet
	Up       bool          // etcd answers, and this replica is a member
	Problem  string        // why not
	Notice   string        // what others have written in etcd that keeps shards from moving, and what to do
	Deadline time.Time     // when the lease ends unless etcd is heard from; monotonic
	Lease    int64         // which Deadline is that of; 0: there was none yet
	Changed  chan struct{} // closed at the next change
}
