package car

import (
	"external-server/internal/link"
	"external-server/internal/session"
)

// holdAck keeps the acknowledgement of the status in hand for its answer (RES-26).
func (o *occupant) holdAck(counter uint32) {
	if o.ack == (link.Ack{}) || counter != o.answering {
		return
	}
	o.tellBroker(counter) // of another session: its answer never comes
	if o.later == nil {
		o.later = make(map[uint32]link.Ack)
	}
	o.later[counter] = o.ack
	o.ack = link.Ack{}
}

// tellBroker says that a status was handled whose answer comes later, or never.
func (s *Seat) tellBroker(counter uint32) {
	if ack, ok := s.later[counter]; ok {
		delete(s.later, counter)
		s.port.Acknowledge(ack)
	}
}

// answerLater publishes an answer that was held, with the acknowledgement of its status.
func (o *occupant) answerLater(e *session.Effect, ack link.Ack) bool {
	delete(o.later, e.Message.Counter)
	ok := o.publish(e.Message, ack)
	if !ok {
		o.port.Acknowledge(ack)
	}
	o.tellSent(e, ok)
	return ok
}
