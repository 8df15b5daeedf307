package car

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/session"
)

// recorder is an observer that writes down events in words.
type recorder struct {
	mu    sync.Mutex
	words []string
}

func (r *recorder) Observe(ev *Event) {
	text := ""
	switch ev.Kind {
	case Received:
		text = fmt.Sprintf("received %v %d after %v", ev.In.Kind, ev.In.Counter, ev.At.Sub(ev.Since))
	case Sent:
		text = fmt.Sprintf("sent %d %d ok=%v", ev.Out.Kind, ev.Out.Counter, ev.OK)
	case SessionStarted:
		text = "started " + ev.SessionID
	case SessionRunning:
		text = fmt.Sprintf("running %s after %v", ev.SessionID, ev.At.Sub(ev.Since))
	case SessionEnded:
		text = fmt.Sprintf("ended %s: %s, %d unanswered", ev.SessionID, ev.Reason, ev.Count)
	case DeviceConnected:
		text = "connected " + ev.Device.Role
	case DeviceDisconnected:
		text = "disconnected " + ev.Device.Role
	case Forwarded:
		text = fmt.Sprintf("forwarded %d %s as %d ok=%v", ev.Counter, ev.Data, ev.Sequence, ev.OK)
	case Called:
		text = fmt.Sprintf("called %s %s %d took %v: %v", ev.Call, ev.Device.Role, ev.Sequence, ev.Took, ev.Err)
	case CommandFetched:
		text = fmt.Sprintf("fetched %s from %d", ev.Command.Data, ev.Module)
	case CommandSent:
		text = fmt.Sprintf("command %d %s, from a module %v", ev.Counter, ev.Command.Data, !ev.Command.Fetched.IsZero())
	case CommandAnswered:
		text = fmt.Sprintf("answered %d %v after %v", ev.Counter, ev.Response, ev.At.Sub(ev.Since))
	case Dropped:
		text = fmt.Sprintf("dropped %d: %s", ev.Count, ev.Reason)
	case Noted:
		text = "noted " + ev.Reason
	case Link:
		text = fmt.Sprintf("link %v", ev.OK)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.words = append(r.words, text)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.words
	r.words = nil
	return out
}

// Everything that happens to a car is told once, with its times.
func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &recorder{}
		io := &fakeModule{number: 2, commands: make(chan []fleet.Command)}
		r := newRig(t, Options{Observer: seen, Limits: Limits{Payload: 200}}, io).run()
		want := func(words ...string) {
			t.Helper()
			synctest.Wait()
			got := seen.take()
			slices.Sort(got) // the worker's events come from its own goroutine
			slices.Sort(words)
			if !slices.Equal(got, words) {
				t.Errorf("told %q\nwant %q", got, words)
			}
		}
		r.connect(button)
		want("link true", "received connect 0 after 0s", "started session1", "called device_connected button 0 took 0s: <nil>",
			"connected button", "sent 1 0 ok=true", "received status 1 after 0s", "forwarded 1 first as 1 ok=true", "sent 2 1 ok=true",
			"command 0 , from a module false", "sent 3 0 ok=true", "called forward_status button 1 took 0s: <nil>",
			"received commandResponse 0 after 0s", "answered 0 OK after 0s", "running session1 after 0s")

		r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: 2, Device: button, Data: []byte("on")})
		want("received status 2 after 0s", "forwarded 2 on as 2 ok=true", "sent 2 2 ok=true", "called forward_status button 2 took 0s: <nil>")

		io.commands <- []fleet.Command{{Device: button, Data: []byte("x")}}
		want("fetched x from 2", "command 1 x, from a module true", "sent 3 1 ok=true")
		advance(time.Second)
		r.respond(1)
		want("received commandResponse 1 after 0s", "answered 1 OK after 1s", "called command_ack button 0 took 0s: <nil>")

		r.seat.Message(make([]byte, 201), link.Delivery{})
		r.seat.Message([]byte{0xff}, link.Delivery{})
		r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: 2, Device: button})
		want("dropped 1: "+DropTooLarge, "dropped 1: "+DropUnreadable, "received status 2 after 0s", "dropped 1: "+string(session.NoteStatusLow))

		r.seat.Disconnect()
		want("disconnected button", "ended session1: disconnected by an operator, 0 unanswered",
			"called device_disconnected button 0 took 0s: <nil>")
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
