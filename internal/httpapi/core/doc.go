// Package core is the HTTP API without HTTP: the known cars and devices, the requests that
// wait for messages, and the one writer of the store. It implements httpapi.API.
//
// New makes a Core, Begin starts its writer, Stop takes no new requests and answers those
// that wait, Close returns when everything accepted is stored, and CloseStore comes last.
// Until the store is loaded every request gets the same answer, 503 with the reason; a
// store that is lost is opened again and again, and posts are refused meanwhile.
//
// The writer's goroutine gives out the timestamps and makes all transactions of the store.
// The lock guards memory only. What is posted is visible to readers and waiting requests
// after the transaction that made it durable, in the order of the timestamps.
//
// With Options.Owners the core serves the cars of the shards that belong to this replica.
// It claims a shard in the store before it serves the shard's cars, and answers ErrMoved
// for all others; lists are those of the whole cluster.
package core
