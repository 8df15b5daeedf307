package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// States of a member.
const (
	StateJoining   = "joining"   // known, serves nothing yet
	StateReady     = "ready"     // takes shards
	StateUnhealthy = "unhealthy" // cannot serve, gives its shards away
	StateDraining  = "draining"  // is about to end, gives its shards away
)

// States of a claim.
const (
	ClaimOpening = "opening" // the owner prepares to serve
	ClaimServing = "serving" // cars are answered
	ClaimLeaving = "leaving" // the owner hands over to another replica
	ClaimLeft    = "left"    // the owner serves it no more, and has handed it over to no replica
)

// Member is one replica as the others see it.
type Member struct {
	Name        string `json:"name"`    // of the replica, unique in the cluster
	Address     string `json:"address"` // host:port of its peer endpoint
	Version     string `json:"version"` // of the program
	State       string `json:"state"`   // one of the States
	Fingerprint string `json:"fingerprint"`
	// Identity is that of the state directory: one process at a time has it, so that a
	// process with the same one proves that the one before has ended.
	Identity string `json:"identity"`
	Instance string `json:"instance"` // of the process, random
	Host     string `json:"host"`     // name of the machine
	PID      int    `json:"pid"`
	Reason   string `json:"reason,omitempty"`  // why the state is unhealthy
	Refuses  []int  `json:"refuses,omitempty"` // shards that it could not open a moment ago
}

// Owner is the replica that serves a shard. The zero value means none.
type Owner struct {
	Replica string
	Address string // of its peer endpoint, empty while unknown
	Epoch   int64
	State   string // one of the Claims
	To      string // the replica to which it is handed over, or empty
}

// View is what one replica knows of the cluster at one moment. It is not changed.
type View struct {
	Self    string   // name of this replica
	Members []Member // sorted by name
	Shards  []Owner  // index is the shard
	Scout   string   // the replica that looks out for cars found by "*", or empty
	// Connected tells whether etcd answers. Without it the rest is what was known last.
	Connected bool
	Since     time.Time // when Connected took its value
	Problem   string    // why etcd does not answer, or why this replica is no member
	Notice    string    // what others have written in etcd that keeps shards from moving, and what to do
	// Orphaned is since when a shard has had no owner, the earliest of all shards; zero: all
	// have one.
	Orphaned time.Time
}

// Member returns the member of a name.
func (v *View) Member(name string) (Member, bool) {
	for _, m := range v.Members {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// Host serves shards. Calls for one shard come one after the other; those for different
// shards may run at the same time, a few of them.
type Host interface {
	// Open begins to serve a shard under the epoch. It returns when cars are answered, or why they are
	// not; a StaleError when the broker knows a higher or equal epoch of another owner. A shard that
	// is being served already keeps its sessions: its claim had vanished and was taken again, and the
	// new epoch is to be announced over the connection that it has.
	Open(ctx context.Context, shard int, epoch int64) error
	// Close ends serving. With a name in to it hands the shard over to that replica first, and returns an error
	// when that replica does not take it. It goes on serving then, unless the error is an ErrLeft. An empty to
	// suspends the sessions for the next owner of the shard. lost: another replica serves the shard already;
	// nothing may be sent to its cars any more.
	Close(ctx context.Context, shard int, to Member, lost bool) error
	// Health is nil when this replica can serve: the broker is reachable, no loop is
	// stalled, modules are in service. It does not block. With a NoBrokerError in it the broker
	// does not answer this replica: what it serves stands still already.
	Health() error
	// Ask asks the former owner of a shard whose claim has vanished. It takes about a
	// second at most, and no time when that owner has offered the shard to this replica a
	// moment ago.
	Ask(ctx context.Context, shard int) (Answer, error)
}

// Answer is what became of a shard without claim.
type Answer struct {
	// Serving: the replica in Owner says that it serves the shard and that it is well
	// (Host.Health). It claims it again by itself. Otherwise the shard may be taken: there
	// was no owner before, it was this replica, it offered the shard to this replica, it
	// does not answer, or it cannot serve.
	Serving bool
	Owner   Owner // with Serving: who, where, under which epoch
}

// ErrLeft is in what Host.Close returns when the shard is served here no more, and no replica
// was handed its sessions: the next owner goes on from the broker's records.
var ErrLeft = errors.New("left to the next owner")

// NoBrokerError is in what Host.Health returns while the broker does not answer.
type NoBrokerError struct {
	Since time.Time // when it answered last
}

func (*NoBrokerError) Error() string { return "the broker does not answer" }

// StaleError is what Host.Open returns when the broker knows an epoch that is not below
// the one to open with: etcd was restored, or another owner was faster.
type StaleError struct {
	Shard int
	Epoch int64 // of the caller
	Known int64 // at the broker
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("shard %d: the broker knows epoch %d, which is not below %d", e.Shard, e.Known, e.Epoch)
}
