package car

import (
	"log/slog"
	"time"

	"external-server/internal/link"
	"external-server/internal/session"
)

// Message implements link.Receiver.
func (s *Seat) Message(payload []byte, d link.Delivery) (heard bool) {
	now := time.Now()
	s.heard(now)
	if limit := s.payload.Load(); int64(len(payload)) > limit {
		s.counters.tooLarge.Add(1)
		s.limit.Log(s.log, slog.LevelInfo, "message of the gateway is too large, ignored",
			slog.Int("bytes", len(payload)), slog.Int64("limit", limit))
		s.tellDropped(DropTooLarge)
		s.dropped(d)
		return true
	}
	it := item{kind: session.EventMessage, payload: payload, delivery: d, at: now}
	v, work := s.mail.put(it)
	switch {
	case v == gone:
		return false
	case work && len(payload) <= quickPayload:
		s.work(&it, true)
	case work:
		first := it
		go s.work(&first, false) // what takes long must not hold up the other cars
	}
	switch v {
	case full:
		s.counters.overflow.Add(1)
		s.limit.Log(s.log, slog.LevelWarn, "messages arrive faster than they are handled, dropped")
		s.tellDropped(DropOverflow)
		s.dropped(d)
	case tooMany:
		s.counters.limited.Add(1)
		s.limit.Log(s.log, slog.LevelWarn, "the gateway sends more messages than limits.messages_per_second allows, dropped")
		s.tellDropped(DropLimited)
		s.dropped(d)
	}
	return true
}

// dropped has a message acknowledged that will not be handled.
func (s *Seat) dropped(d link.Delivery) {
	if d.Ack != (link.Ack{}) {
		s.linkChanged(item{kind: kindDropped, delivery: d})
	}
}

// Sent implements link.Receiver: the calls of the modules begin. Those of an occupant
// that was replaced after the message have begun when it was released.
func (s *Seat) Sent() {
	if o := s.occupant.Load(); o != nil {
		for _, m := range o.modules {
			m.begin()
		}
	}
}

// LinkUp implements link.Receiver.
func (s *Seat) LinkUp(up link.Up) {
	own := s.opts.OwnBroker && s.ownUp.CompareAndSwap(false, true)
	s.linkChanged(item{kind: session.EventLinkUp, at: time.Now(), kept: own || up == link.Continued, downs: s.downs.Load()})
	if own {
		s.BacklogRead()
	}
}

// BacklogRead implements link.Receiver.
func (s *Seat) BacklogRead() { s.linkChanged(item{kind: session.EventBacklogRead}) }

// BacklogSlow implements link.Withholder.
func (s *Seat) BacklogSlow() { s.linkChanged(item{kind: session.EventBacklogSlow}) }

// LinkDown implements link.Receiver.
func (s *Seat) LinkDown(reason error, kept bool) {
	downs := s.downs.Add(1)
	kept = kept || s.opts.Suspending != nil && s.opts.Suspending()
	s.linkChanged(item{kind: session.EventLinkDown, at: time.Now(), reason: reason, kept: kept, downs: downs})
}

// linkChanged is handled on the link's goroutine: ten thousand cars would otherwise
// begin as many at once.
func (s *Seat) linkChanged(it item) {
	if _, work := s.mail.put(it); work {
		s.work(nil, false)
	}
}

// put queues something that is not a message.
func (s *Seat) put(it item) {
	if _, work := s.mail.put(it); work {
		go s.work(nil, false)
	}
}

// work lets the occupant handle first, if there is one, and what is in the mailbox;
// the mailbox has told the caller to.
func (s *Seat) work(first *item, onLink bool) { s.occupant.Load().work(first, onLink) }
