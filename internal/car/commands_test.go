package car

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// A module that always has a command while none of its devices is connected is asked
// after pauses, which are over when a device connects.
func TestStaleCommandsAreFetchedWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fetched atomic.Int64
		m := &fakeModule{number: 2, commands: make(chan []fleet.Command)}
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case m.commands <- []fleet.Command{{Device: button, Data: []byte("now")}}:
					fetched.Add(1)
				case <-stop:
					return
				}
			}
		}()
		r := newRig(t, Options{}, m).run()
		advance(time.Second) // the first batch may be as large as the worker's queue
		before := fetched.Load()
		advance(10 * time.Second)
		if n := fetched.Load() - before; n < 150 || n > 250 {
			t.Errorf("%d commands were fetched in 10 s without a device, want one in 50 ms", n)
		}
		r.connect(button) // takes no time here
		if n := len(r.link.take()); n < 100 {
			t.Errorf("%d messages were sent when the device was connected, want commands without pauses", n)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
