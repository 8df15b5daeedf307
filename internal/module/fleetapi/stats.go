package fleetapi

import (
	"sync/atomic"
	"time"
)

// counters are what an instance counts.
type counters struct {
	posted, refused, lost, invalid, retries atomic.Uint64
	delivered, badCommands, flushed         atomic.Uint64
}

// Stats is what can be said about an instance at one moment.
type Stats struct {
	Queued       int       // statuses and error messages that wait, those in the spool included
	Spooled      int       // those in the spool
	QueuedBytes  int64     // in memory and on disk
	OldestQueued time.Time // when the oldest was accepted, zero: none waits

	Posted        uint64 // stored by the API
	Refused       uint64 // lost: the API answered 400 twice (DEF-43)
	Lost          uint64 // lost: the instance was closed before they could be posted
	Invalid       uint64 // never accepted: no JSON, or not what the module expects
	Retries       uint64 // posts that failed and were made again
	SpoolFailures uint64 // kept in memory only because the spool failed
	SpoolDamaged  uint64 // places in the spool that could not be read

	Commands        uint64 // handed out
	CommandsInvalid uint64 // skipped (MM-26, MM-35)
	CommandsFlushed uint64 // older than the start, discarded (REC-20)

	APIUp bool // false: requests wait because the host does not answer
}

// Stats may be called at any time from any goroutine.
func (i *Instance) Stats() Stats {
	s := Stats{
		Posted:          i.counters.posted.Load(),
		Refused:         i.counters.refused.Load(),
		Lost:            i.counters.lost.Load(),
		Invalid:         i.counters.invalid.Load(),
		Retries:         i.counters.retries.Load(),
		Commands:        i.counters.delivered.Load(),
		CommandsInvalid: i.counters.badCommands.Load(),
		CommandsFlushed: i.counters.flushed.Load(),
		APIUp:           !i.host.posting.mustWait() && !i.host.polling.mustWait(),
	}
	s.Queued, s.Spooled, s.QueuedBytes, s.OldestQueued = i.queue.depth()
	s.SpoolFailures, s.SpoolDamaged = i.queue.faults()
	return s
}
