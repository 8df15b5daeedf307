package app

import (
	"errors"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/link"
)

// refusingLink refuses one car.
type refusingLink struct {
	link.Link
	car string
}

var errRefusedCar = errors.New("refused")

func (l refusingLink) Attach(id fleet.CarID, r link.Receiver) (link.Port, error) {
	if id.Car == l.car {
		return nil, errRefusedCar
	}
	return l.Link.Attach(id, r)
}

// TestFailedStartEndsTheCars: when one car cannot be started, those started before it
// have ended before what they use is closed.
func TestFailedStartEndsTheCars(t *testing.T) {
	s := newServer(t, idleModule{})
	s.roster.link = refusingLink{s.roster.link, "b"}
	first := s.roster.entries["a"]
	if err := s.Run(t.Context()); !errors.Is(err, errRefusedCar) {
		t.Errorf("Run returned %v", err)
	}
	select {
	case <-first.done:
	default:
		t.Error("a car still runs")
	}
}
