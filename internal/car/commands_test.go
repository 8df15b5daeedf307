package car

import (
	"fmt"
	"testing"
	"testing/synctest"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// A module that always has a command, and a gateway that answers none: a bounded number
// is fetched, the rest stays in the module, and none is lost when the answers come. The
// commands of another module of the car are not held up (REC-22).
func TestUnansweredCommandsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flood := &fakeModule{number: 2, commands: make(chan []fleet.Command)}
		calm := &fakeModule{number: 1, commands: make(chan []fleet.Command, 1)}
		r := newRig(t, Options{Limits: Limits{Session: session.Options{MaxUnacked: 10}}}, flood, calm)
		r.run()
		r.connect(button, driver)
		r.link.take()
		fetched := 0
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case flood.commands <- []fleet.Command{{Device: button, Data: []byte(fmt.Sprint(fetched))}}:
					fetched++
				case <-stop:
					return
				}
			}
		}()
		synctest.Wait()
		var sent []string
		take := func() int {
			sent = append(sent, r.link.take()...)
			return len(sent)
		}
		if n := take(); n != 10 || fetched > 1010 {
			t.Fatalf("%d commands were sent and %d fetched", n, fetched)
		}
		calm.commands <- []fleet.Command{{Device: driver, Data: []byte("calm")}}
		synctest.Wait()
		if n := take(); n != 11 {
			t.Errorf("%d commands were sent, want that of the other module beside 10", n)
		}
		for counter := range uint32(3000) {
			r.respond(counter + 2)
			want := int(counter) + 12
			if counter >= 10 { // one answer was that to the calm module
				want--
			}
			if n := take(); n != want {
				t.Fatalf("%d commands were sent after %d answers", n, counter+1)
			}
		}
		if s := r.seat.Snapshot(); s.Phase != session.PhaseRunning || s.Modules[0].CommandsDiscarded != 0 {
			t.Errorf("%+v", s)
		}
		next := 0
		for _, text := range sent {
			var counter, data int
			if n, _ := fmt.Sscanf(text, "command %d button %d", &counter, &data); n != 2 {
				continue
			}
			if data != next {
				t.Fatalf("command %d follows %d", data, next-1)
			}
			next++
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
