package cluster

// Registry is what etcd holds of a cluster, as far as this replica has read it. Own
// writes that succeeded are in it. It is not changed; a new one takes its place.
type Registry struct {
	Members []Member // sorted by name, their names differ
	Claims  []Claim  // index is the shard
	Scout   string   // owner of the scout claim, or empty
}

// Claim is what etcd holds of one shard. The zero value is no claim.
type Claim struct {
	Owner string
	State string // one of the Claims
	To    string // with ClaimLeaving and ClaimLeft: who gets it
	// Left, without Owner: the owner that gave the claim up had said before that it serves the shard no more.
	Left bool
	// Base and Revision make the epoch together: after a restore etcd begins with small
	// revisions again, but epochs only rise.
	Base     int64
	Revision int64 // in which etcd made the key
}

// Epoch is the number that rises with every owner of the shard.
func (c Claim) Epoch() int64 { return c.Base + c.Revision }
