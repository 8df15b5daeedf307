package car

import (
	"fmt"
	"testing"
	"testing/synctest"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// noting is a carrier that writes down what it gets between the messages of the car's link.
type noting struct {
	t    *testing.T
	link *fakeLink
}

func (n *noting) Put(car fleet.CarID, data []byte) {
	if len(data) == 0 {
		n.link.record("no session")
		return
	}
	r, err := record.Carried(car.String(), data)
	if err != nil {
		n.t.Error(err)
		return
	}
	n.link.record(fmt.Sprintf("record %s, next status %d, held %d, next command %d, waiting %d", r.Record.ID, r.Record.Expected, len(r.Record.Ahead), r.Next, len(r.Record.Commands)))
}

// What another server needs to know is handed on before what it describes leaves; statuses
// alone cause nothing (RES-22).
func TestCarrierIsToldFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2, commands: make(chan []fleet.Command)}
		carrier := &noting{t: t}
		r := newRig(t, Options{Journal: new(memory), Carrier: carrier}, io)
		carrier.link = r.link
		r.run()
		r.link.take()
		r.connect(button)
		sent := r.link.take()
		if last := sent[len(sent)-1]; last != "record session1, next status 0, held 0, next command 1, waiting 0" {
			t.Errorf("after the connect sequence: %q", sent)
		}
		r.status(2, button, "s2")
		r.wantSent("record session1, next status 3, held 0, next command 1, waiting 0", "statusResponse 2")
		r.status(3, button, "s3")
		r.status(4, button, "s4")
		r.wantSent("statusResponse 3", "statusResponse 4")
		r.status(6, button, "s6")
		r.wantSent("record session1, next status 5, held 1, next command 1, waiting 0")
		r.status(5, button, "s5")
		r.wantSent("record session1, next status 7, held 0, next command 1, waiting 0", "statusResponse 5", "statusResponse 6")
		io.commands <- []fleet.Command{{Device: button, Data: []byte("go")}}
		synctest.Wait()
		r.wantSent("record session1, next status 7, held 0, next command 2, waiting 1", "command 1 button go")
		r.respond(1)
		r.wantSent("record session1, next status 7, held 0, next command 2, waiting 0")
		if err := r.end(); err != nil {
			t.Error(err)
		}
		r.wantSent("no session", "disconnect")
	})
}
