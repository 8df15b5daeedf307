package session

import "external-server/internal/fleet"

// question is what a status is waiting for whose device is not connected and whose
// type the module was never asked about: it is answered if no module serves the type
// (REC-6) and ignored if one does (STAT-24, STAT-26). There is one at most, because
// statuses are handled in order.
type question struct {
	ticket    uint64
	device    fleet.Device
	waiting   bool
	decided   bool // supported is the answer, valid until the status is handled
	supported bool
}

// ask asks the module about the type of the status' device. The status waits for
// the answer at the head of the order, as for an admission.
func (s *Session) ask(m fleet.ClientMessage) {
	s.tickets++
	s.asking = question{ticket: s.tickets, device: m.Device, waiting: true}
	s.emit(Effect{Kind: EffectAskType, Device: m.Device, Ticket: s.tickets})
	if s.admitBy.IsZero() {
		s.admitBy = s.now.Add(s.opts.AdmissionTimeout) // REC-8
	}
	s.wait(m)
}

// learn takes the answer to the question and goes on.
func (s *Session) learn(supported bool) {
	s.asking.waiting, s.asking.decided, s.asking.supported = false, true, supported
	s.admitted()
}

// recall tells whether the module of the device serves its type, as far as that is
// known.
func (s *Session) recall(d fleet.Device) (supported, known bool) {
	if a := &s.asking; a.decided && a.device.Module == d.Module && a.device.Type == d.Type {
		return a.supported, true
	}
	return s.modules.Recall(d.Module, d.Type)
}
