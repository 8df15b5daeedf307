// Package cluster decides which replica of a fleet's servers serves which shard.
//
// A shard is the unit of ownership: the cars whose names hash to it, their one
// connection to the broker and their journal. etcd holds who is a member and who owns
// what; the broker, not this package, keeps two owners apart (package cluster/fence).
//
// # What owns what
//
// Each replica has one lease. Its key below members/ and its claims below shards/ are
// on that lease, so they vanish together when it dies. The epoch of a claim rises with
// every owner. A replica that cannot reach etcd goes on serving what it serves: only
// another replica's higher epoch at the broker ends that.
//
// # When a shard moves
//
// After a loss at once; after a join when the members have not changed for 15 s, one
// shard at a time, until no replica has two more than another; shard by shard when a
// replica drains or cannot serve (a stalled loop, modules out of service), all at once when the
// broker does not answer it and answers others.
// A claim that vanished is no loss: the owner is asked first.
package cluster
