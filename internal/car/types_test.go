package car

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/protocol"
)

// hesitant is a module that answers questions about types when ready is closed.
type hesitant struct {
	*fakeModule
	ready chan struct{}
}

func (m hesitant) Supports(deviceType uint32) bool {
	<-m.ready
	return m.fakeModule.Supports(deviceType)
}

// rig runs a car with the module and others.
func (m hesitant) rig(t *testing.T, others ...*fakeModule) *rig {
	t.Helper()
	r := newRig(t, Options{}, others...)
	r.modules = append([]Binding{{Module: m, Instance: fakeInstance{m.fakeModule}}}, r.modules...)
	return r.run()
}

// The goroutine that delivers the messages of all cars never waits for a module that
// is asked about device types, neither at Connect nor for a status of a device that
// is not connected: the answer comes only when this goroutine is done (REC-8).
func TestTypesAreAskedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := hesitant{&fakeModule{number: 2}, make(chan struct{})}
		a := slow.rig(t)
		b := newRig(t, Options{}, &fakeModule{number: 1}).run()
		b.connect(driver)
		b.link.take()
		deliver := func(r *rig, m fleet.ClientMessage) { // on this goroutine, as the link does
			m.SessionID = "session1"
			raw, err := protocol.EncodeClient(m, carID)
			if err != nil {
				t.Fatal(err)
			}
			r.link.receiver.Message(raw, link.Delivery{})
			r.link.receiver.Sent()
		}
		var devices []fleet.Device
		for i := range uint32(1000) {
			devices = append(devices, fleet.Device{Module: 2, Type: i, Role: fmt.Sprintf("r%d", i), Name: "n"})
		}
		deliver(a, fleet.ClientMessage{Kind: fleet.ClientConnect, Devices: devices})
		for n := range uint32(100) {
			deliver(b, fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: n + 2, Device: driver})
			b.wantSent(fmt.Sprintf("statusResponse %d", n+2))
		}
		a.wantSent()
		close(slow.ready)
		synctest.Wait()
		a.wantSent("connectResponse session1")
		a.wantCalls(slow.fakeModule, calledFor(devices[:10])...)
		a.wantLogged("device type not supported by its module", 1) // limited
		for _, r := range []*rig{a, b} {
			if err := r.end(); err != nil {
				t.Error(err)
			}
		}
	})
}

func calledFor(devices []fleet.Device) (calls []string) {
	for _, d := range devices {
		calls = append(calls, "connected "+d.Role)
	}
	return calls
}

// A status of a device that is not connected waits for its module's answer about the
// type, and is ignored when none comes in time (REC-8, STAT-24).
func TestTypeOfUnknownDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := hesitant{&fakeModule{number: 2}, make(chan struct{})}
		r := slow.rig(t, &fakeModule{number: 1})
		r.connect(driver)
		r.link.take()
		strange := fleet.Device{Module: 2, Type: 11, Role: "strange", Name: "s"}
		r.status(2, strange, "x")
		r.status(3, driver, "y")
		r.wantSent()
		close(slow.ready)
		synctest.Wait()
		r.wantSent("statusResponse 2", "statusResponse 3")
		r.status(4, fleet.Device{Module: 2, Type: 4, Role: "served", Name: "s"}, "x")
		r.status(5, driver, "y")
		r.wantSent("statusResponse 5")
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A module that does not answer in time holds its car up for two seconds, not for
// ever, and its queue holds one question of the car, however often it is asked.
func TestTypeIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := hesitant{&fakeModule{number: 2}, make(chan struct{})}
		r := slow.rig(t, &fakeModule{number: 1})
		r.connect(driver)
		r.link.take()
		for n := range uint32(10) {
			r.status(2+2*n, fleet.Device{Module: 2, Type: 20 + n, Role: "strange", Name: "s"}, "x")
			r.status(3+2*n, driver, "y")
			r.wantSent()
			advance(2 * time.Second)
			r.wantSent(fmt.Sprintf("statusResponse %d", 3+2*n))
		}
		if n := r.seat.Snapshot().Modules[0].Queued; n > 2 { // the one that is asked and the one that waits
			t.Errorf("%d calls wait for the module", n)
		}
		close(slow.ready)
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
