package car

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// awaited returns bindings of modules whose statuses are answered when they have taken them.
func awaited(modules ...*fakeModule) []Binding {
	out := bindings(modules...)
	for i := range out {
		out[i].Awaited = true
	}
	return out
}

// holding is a module whose forward_status waits for a token while hold is set.
type holding struct {
	*fakeModule
	pass chan struct{}
	hold bool // set while the car is at rest
}

func newHolding(number int32) *holding {
	h := &holding{fakeModule: &fakeModule{number: number}, pass: make(chan struct{})}
	h.onCall = func(ctx context.Context, call string) error {
		if h.hold && len(call) > 6 && call[:6] == "status" {
			select {
			case <-h.pass:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	return h
}

func (h *holding) release() {
	h.pass <- struct{}{}
	synctest.Wait()
}

func awaitedRig(t *testing.T, opts Options, h *holding) *rig {
	t.Helper()
	r := newRig(t, opts)
	r.modules = awaited(h.fakeModule)
	r.run()
	r.connect(button)
	r.link.take()
	h.hold = true
	return r
}

func (r *rig) wantAcknowledged(all, answered []uint16) {
	r.t.Helper()
	gotAll, gotAnswered := r.link.acknowledged()
	if !slices.Equal(gotAll, all) || !slices.Equal(gotAnswered, answered) {
		r.t.Errorf("acknowledged %v, with an answer %v, want %v and %v", gotAll, gotAnswered, all, answered)
	}
}

// acked delivers a status that the broker has to be told of.
func (r *rig) acked(counter uint32, packet uint16) {
	r.t.Helper()
	raw, err := protocol.EncodeClient(fleet.ClientMessage{
		Kind: fleet.ClientStatus, SessionID: "session1", Counter: counter, State: fleet.StateRunning, Device: button, Data: []byte("x"),
	}, carID)
	if err != nil {
		r.t.Fatal(err)
	}
	r.seat.Message(raw, link.Delivery{Ack: link.Ack{Connection: 1, Packet: packet}})
	r.seat.Sent()
	synctest.Wait()
}

// An awaited module that is slow delays the answers of its car, in their order, and nothing else: the link's goroutine has gone
// on. The broker hears with the answer that the status was handled, after 20 ms without it, because no other server needs a record of it (RES-26).
func TestAnsweredWhenTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding(2)
		r := awaitedRig(t, Options{}, h)
		r.acked(2, 12)
		r.acked(3, 13)
		r.wantSent()
		r.wantAcknowledged(nil, nil)
		h.release()
		r.wantSent("statusResponse 2")
		r.wantAcknowledged([]uint16{12}, []uint16{12})
		time.Sleep(19 * time.Millisecond)
		synctest.Wait()
		r.wantAcknowledged([]uint16{12}, []uint16{12})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		r.wantSent()
		r.wantAcknowledged([]uint16{12, 13}, []uint16{12})
		h.release()
		r.wantSent("statusResponse 3")
		r.wantAcknowledged([]uint16{12, 13}, []uint16{12})
		h.hold = false
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A module that hangs does not end the session: the answer leaves after 10 s, and the observer hears that the status is at
// risk. What it refuses it has been given.
func TestAnsweredAtRisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding(2)
		o := new(recorder)
		r := awaitedRig(t, Options{Observer: o}, h)
		r.acked(2, 12)
		time.Sleep(10*time.Second - time.Millisecond)
		synctest.Wait()
		r.wantSent()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		r.wantSent("statusResponse 2")
		o.mu.Lock()
		if told := slices.DeleteFunc(slices.Clone(o.words), func(w string) bool { return !strings.Contains(w, string(session.NoteStatusAtRisk)) }); len(told) != 1 {
			t.Errorf("the observer was told %q of statuses at risk, want one", told)
		}
		o.mu.Unlock()
		h.release()
		h.hold = false
		old := h.onCall
		h.onCall = func(ctx context.Context, call string) error {
			return errors.Join(old(ctx, call), errors.New("refused"))
		}
		r.acked(3, 13)
		synctest.Wait()
		r.wantSent("statusResponse 3")
		h.onCall = old
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// The process ends with held answers. The next one hands the status over first and answers it then, once, although it comes
// again.
func TestHeldAnswersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding(2)
		journal := new(memory)
		r := awaitedRig(t, Options{Journal: journal, Limits: Limits{Stop: time.Second}}, h)
		r.acked(2, 12)
		r.acked(3, 13)
		if err := r.suspend(); err != nil {
			t.Error(err)
		}
		r.wantSent()
		r.wantAcknowledged(nil, nil)
		known := journal.known(t)
		if known.Record == nil || len(known.Record.Owed) != 2 || len(known.Left) != 2 {
			t.Fatalf("the journal knows %+v", known)
		}
		next, g := newRig(t, Options{Journal: journal, Down: time.Second}), newHolding(2)
		g.hold = true
		if _, err := next.seat.Replace(t.Context(), Occupant{Known: known, Modules: awaited(g.fakeModule)}); err != nil {
			t.Fatal(err)
		}
		next.watch()
		next.seat.LinkUp(link.Continued)
		next.acked(2, 21)
		next.acked(3, 22)
		next.seat.BacklogRead()
		synctest.Wait()
		next.wantSent()
		next.wantAcknowledged([]uint16{21, 22}, nil) // more of other cars may be behind them
		g.release()
		next.wantSent("statusResponse 2")
		g.release()
		next.wantSent("statusResponse 3")
		g.hold = false
		if err := next.end(); err != nil {
			t.Error(err)
		}
	})
}

// Without a journal the numbers of statuses begin anew with each session that follows a defect: what a module of
// before takes late answers nothing of it.
func TestLateTakingOfAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding(2)
		r := awaitedRig(t, Options{}, h)
		r.acked(2, 12)
		old := r.seat.occupant.Load().modules[0]
		r.link.set(func() { r.link.broken = true })
		h.release() // its answer meets the defect
		var d *Defect
		if err := <-r.ended; !errors.As(err, &d) {
			t.Fatalf("Run returned %v", err)
		}
		r.link.set(func() { r.link.broken = false })
		g := newHolding(2)
		r.put(awaited(g.fakeModule))
		r.watch()
		r.connect(button)
		r.link.take()
		g.hold = true
		r.acked(2, 14)
		if r.seat.mail.putDelivered(old, 1000) {
			go r.seat.work(nil, false)
		}
		synctest.Wait()
		r.wantSent()
		g.release()
		r.wantSent("statusResponse 2")
		g.hold = false
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
