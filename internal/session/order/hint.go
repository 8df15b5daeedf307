package order

import "external-server/internal/session/record"

// Hint is what is known of the next status in a session that a failed server had: it is
// Expected or a later one.
type Hint struct {
	record.Hint
	Held  bool   // the record has held statuses, the first of which is First
	First uint32 // the next status is not behind it
}

// Guess returns what is known of the next status; nil: it is known exactly. It is known if the failed server held
// this status: that server would have recorded its acceptance, as it records every change of what is held.
func (o *Order) Guess(r record.Hint) *Hint {
	h := &Hint{Hint: r}
	for _, n := range o.Counters() {
		if h.Come && int32(n-h.Lowest) >= 0 {
			continue // it has come since, or does not matter
		}
		if !h.Held || int32(n-h.First) < 0 {
			h.Held, h.First = true, n
		}
	}
	if h.Held && o.Started && h.First == o.Expected {
		return nil
	}
	return h
}
