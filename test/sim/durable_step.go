package sim

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// step lets the core handle one event, then journals, performs the effects and
// acknowledges the message, together with its answer if there is one.
func (s *durableServer) step(ev session.Event, id int) {
	s.w.steps++
	effects := s.core.Step(s.clock(), ev)
	if r := s.core.Journal(); r != nil {
		s.batch = append(s.batch, bytes.Clone(r))
	}
	if s.replica != nil {
		s.carry()
	}
	for i := range effects {
		e := &effects[i]
		s.w.trace("      core -> %s", describeEffect(e))
		switch e.Kind {
		case session.EffectPublish:
			if held := s.withheld[e.Message.Counter]; held > 0 && e.Message.Kind == fleet.ServerStatusResponse {
				s.out = append(s.out, wireItem{ack: held, paired: true})
				delete(s.withheld, e.Message.Counter)
			}
			answers := id > 0 && ev.Message.Kind == fleet.ClientStatus && e.Message.Kind == fleet.ServerStatusResponse && e.Message.Counter == ev.Message.Counter
			if answers {
				s.out = append(s.out, wireItem{ack: id, paired: true})
				id = 0
			} else if e.Message.Kind == fleet.ServerStatusResponse {
				s.tellBroker(e.Message.Counter, true)
			}
			s.publish(outgoing{message: e.Message})
		case session.EffectAnswerLater:
			if id > 0 && e.Counter == ev.Message.Counter {
				s.tellBroker(e.Counter, false)
				s.held[e.Counter] = id
				s.owedAt[e.Counter] = s.w.now
				id = 0
			}
		case session.EffectHandled:
			s.tellBroker(e.Counter, false)
		case session.EffectSessionEnded:
			clear(s.owedAt)
		case session.EffectNote:
			if e.Note == session.NoteStatusAtRisk {
				s.w.atRisk[riskKey(e.SessionID, e.Counter)] = true
			}
		case session.EffectNotifyDisconnect:
			s.publish(outgoing{notification: true})
		case session.EffectDiscardOutgoing:
			s.discard()
		case session.EffectDeviceConnected:
			s.worker(e.Device.Module).put(durableJob{kind: jobConnected, device: e.Device, ticket: e.Ticket})
		case session.EffectForward:
			s.worker(e.Device.Module).put(durableJob{kind: jobStatus, device: e.Device, data: string(e.Data), number: e.Number, again: e.Again})
		case session.EffectDeviceDisconnected:
			s.worker(e.Device.Module).put(durableJob{kind: jobDisconnected, device: e.Device})
		}
	}
	if counter, yes := s.core.Withheld(); yes && id > 0 && s.withheld[counter] == 0 {
		s.withheld[counter], id = id, 0
	}
	if id > 0 {
		s.out = append(s.out, wireItem{ack: id})
	}
	if !s.core.Withholds() {
		for _, counter := range slices.Sorted(maps.Keys(s.withheld)) {
			s.out = append(s.out, wireItem{ack: s.withheld[counter]})
		}
		clear(s.withheld)
	}
	s.plan()
	s.arm()
}

// answerOf is one answer to a status of normal communication.
type answerOf struct {
	session string
	conn    int
	counter uint32
}

// inOrder: an answer is held for 10 s at most, and over one connection the answers of a session leave in the order of the counters.
func (s *durableServer) inOrder(m fleet.ServerMessage) {
	if since, ok := s.owedAt[m.Counter]; ok && m.Kind == fleet.ServerStatusResponse {
		delete(s.owedAt, m.Counter)
		if held := s.w.now - since; held > 10*time.Second && s.replica == nil { // a halted one does not see the time
			s.w.fail("RES-26: the answer to status %d was held for %v", m.Counter, held)
		}
	}
	if m.Kind != fleet.ServerStatusResponse || s.core.Phase() != session.PhaseRunning {
		return
	}
	if l := s.last; l.session == m.SessionID && l.conn == s.conn && int32(m.Counter-l.counter) < 0 {
		s.w.fail("RES-26: status %d is answered after %d", m.Counter, l.counter)
	}
	s.last = answerOf{m.SessionID, s.conn, m.Counter}
}

// tellBroker writes the PUBACK of a status whose answer was held; paired: the answer follows.
func (s *durableServer) tellBroker(counter uint32, paired bool) {
	if id, ok := s.held[counter]; ok {
		delete(s.held, counter)
		s.out = append(s.out, wireItem{ack: id, paired: paired})
	}
}
