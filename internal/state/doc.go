// Package state owns the state directory: what lets the next process go on with
// the sessions of the one before. It knows nothing of sessions.
//
//	identity.json   format version, identity, number of shards; written once
//	lock            locked (flock) by the process that serves; says which one it is
//	lock.turn       locked for a moment by those who try to take the lock
//	alive           one page: when each shard was last served, by a clock that no
//	                setting of the time changes; what must not be resumed from
//	shards/NN/      the journal of a shard
//	shards/NN.epoch under which epoch it was written, when several servers share the cars
//	damaged-N/NN/   journals that one process could not resume from, for a person to look at
//	poisoned-N/     all journals, after eight deaths at once after a resume
//
// Only the last three of damaged-N and of poisoned-N are kept.
//
// # Time
//
// While a shard is served its stamp is renewed once per second, with
// CLOCK_BOOTTIME: it goes on while the machine sleeps, and is only compared within
// one boot of the machine (boot id). A process that has started and does not serve
// yet does not renew it, so that a process that fails again and again at its start
// does not make an old session look young.
//
// # Why the page is written, not mapped
//
// A mapped file that somebody truncates, or whose disk fails, ends the process
// with SIGBUS. A write of one page survives the process as well, costs two
// microseconds per second, and fails with an error.
//
// # Trouble
//
// Trouble with the directory never keeps cars from being served. Open and OpenShard return
// errors that say what to do, and the caller then serves without journals. Trouble with one
// journal leaves that shard without a journal, and no other. What happens later is one
// warning, and a journal that does nothing more.
package state
