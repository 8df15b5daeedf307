// Package store keeps the messages of the HTTP API in a database: SQLite for one machine,
// PostgreSQL for more, also for several servers that share it.
//
// A Store has one owner at a time. The owner calls its methods from one goroutine, except
// Messages. What Apply has accepted is durable and visible when it returns; nothing of a
// batch that failed is. Every error is an *Error: its Fault says what an operator can do,
// and with Reload it is not known whether the transaction was made, so that the owner must
// call Load before it goes on.
//
// Open returns a store of one server. OpenShared returns one that the replicas of a cluster
// use at a time: each claims shards under an epoch, and a transaction for cars of a shard
// that has a higher epoch fails with FaultMoved.
//
// The package decides nothing about cars and timestamps: package core does.
package store
