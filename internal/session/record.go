package session

import (
	"cmp"
	"slices"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// maxRedelivered is how far back a status may be redelivered: a broker has no more
// unacknowledged messages of a connection under way (Receive Maximum).
const maxRedelivered = 4096

// Record returns a copy of the session in normal communication, nil in every other
// phase: a connect sequence is not resumed (RES-4). A device whose admission is undecided
// is left out; its status waits in Ahead and makes it join again.
func (s *Session) Record() *record.Session {
	if s.phase != PhaseRunning {
		return nil
	}
	o := &s.order
	r := &record.Session{
		ID: s.id, Devices: s.recordDevices(), WithModule: s.withModule,
		Counting: o.started, First: o.first, Expected: o.expected, Passed: slices.Clone(o.passed),
		Next: s.sent.Next, Recovering: s.recovery != nil,
		Owed: s.owed.Records(),
	}
	for _, m := range o.ahead {
		if !m.unrecorded {
			r.Ahead = append(r.Ahead, m.ClientMessage)
		}
	}
	slices.SortFunc(r.Ahead, func(a, b fleet.ClientMessage) int {
		return cmp.Compare(int32(a.Counter-o.expected), int32(b.Counter-o.expected))
	})
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
