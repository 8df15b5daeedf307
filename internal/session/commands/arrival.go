package commands

import "external-server/internal/session/record"

// Arrival is what is known, after the link was lost, of what had reached the broker (RES-10): a status that the
// broker does not send again was told to it as handled, so it has read everything in front of that.
type Arrival struct {
	Settled bool // everything that was sent
	Local   bool // the process has not ended, and the link took everything
	// Limbo: an earlier recovery was not over, so commands that wait may not have left
	// although later answers have.
	Limbo bool

	counted bool   // a status had come before
	told    uint32 // the first one that had not
	came    bool   // one of those before comes again
	lowest  uint32 // the lowest of these
}

// LookBack notes what had come: counted says whether any status had, told is the first one that had not.
func (a *Arrival) LookBack(counted bool, told uint32) { a.counted, a.told = counted, told }

// Sees notes a status that comes while what the broker held is read.
func (a *Arrival) Sees(counter uint32) {
	if a.counted && int32(counter-a.told) < 0 && (!a.came || int32(counter-a.lowest) < 0) {
		a.came, a.lowest = true, counter
	}
}

// Certain tells whether all that was sent is known to have reached the broker.
func (a *Arrival) Certain() bool { return a.Settled && !a.Limbo }

// Lost returns the place of the first waiting command that has not reached the broker, and whether that is certain.
func (q *Queue) Lost(a *Arrival) (first int, certain bool) {
	cut := a.told // of all before the broker knows that they were handled
	if a.came {
		cut = a.lowest
	}
	known := 0 // all before have arrived
	for i := range q.waiting {
		c := &q.waiting[i]
		if c.Responded || !a.Limbo && (a.Settled || a.Local || a.counted && int32(c.Before-cut) < 0) {
			known = i + 1
		}
	}
	if known == len(q.waiting) {
		return known, true
	}
	// What was sent when the broker was already told of a status that comes again has not left for certain.
	return known, !a.Limbo && a.came && int32(q.waiting[known].Before-cut) > 0
}

// Stand sets Before of the commands that wait: the first ones have arrived.
func (q *Queue) Stand(arrived int, before uint32) {
	for i := range q.waiting {
		q.waiting[i].Before = record.BeforeOf(i < arrived, before)
	}
}
