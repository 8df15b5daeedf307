package session

import "external-server/internal/session/record"

// Record returns a copy of the session in normal communication, nil in every other
// phase: a connect sequence is not resumed (RES-4). A device whose admission is undecided
// is left out; its status waits in Ahead and makes it join again.
func (s *Session) Record() *record.Session {
	if s.phase != PhaseRunning {
		return nil
	}
	r := &record.Session{
		ID: s.id, Devices: s.recordDevices(), WithModule: s.withModule,
		Next: s.sent.Next, Recovering: s.recovery != nil && !s.recovery.arrival.Certain(),
		Owed: s.owed.Records(),
	}
	s.order.Record(r)
	waiting := s.sent.Waiting()
	for i := range waiting {
		r.Commands = append(r.Commands, waiting[i].Record())
	}
	return r
}

func (s *Session) recordDevices() []record.Device {
	var out []record.Device
	for _, d := range s.devices {
		if !d.asked {
			out = append(out, record.Device{Device: d.Device, Supported: d.supported})
		}
	}
	return out
}
