package car

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// What comes for a car that was out of reach for long is answered when all was read, and
// acknowledged with its answer: whatever the broker has not read of it when the process ends
// comes again, and nothing else does (RES-3, RES-6). What is not answered then, because a
// status is missing, is in the journal before it is acknowledged, and so is everything when
// the broker waits for acknowledgements.
func TestAcknowledgedWithTheAnswer(t *testing.T) {
	for _, slow := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			journal := new(memory)
			before := newRig(t, Options{Journal: journal}, &fakeModule{number: 2}).run()
			before.connect(button)
			before.status(2, button, "s2")
			before.status(3, button, "s3")
			if err := before.suspend(); err != nil {
				t.Fatal(err)
			}
			known := journal.known(t)
			r := newRig(t, Options{Journal: journal, Down: 10 * time.Second})
			if _, err := r.seat.Replace(t.Context(), Occupant{Known: known, Modules: bindings(&fakeModule{number: 2})}); err != nil {
				t.Fatal(err)
			}
			r.watch()
			r.seat.LinkUp(link.Continued)
			come := func(packet uint16, counter uint32, again bool) {
				t.Helper()
				payload := statusOf(t, counter)
				r.seat.Message(payload, link.Delivery{Duplicate: again, Ack: link.Ack{Connection: 1, Packet: packet}})
				r.seat.Sent()
				synctest.Wait()
			}
			come(1, 3, true) // it was answered, and the broker has not read that
			come(2, 4, false)
			come(3, 5, false)
			come(4, 7, false) // 6 is missing
			held := func() (counters []uint32) {
				for _, m := range journal.known(t).Record.Ahead {
					counters = append(counters, m.Counter)
				}
				return counters
			}
			want := func(when string, packets, withAnswer []uint16, inJournal []uint32, sent ...string) {
				t.Helper()
				synctest.Wait()
				all, answered := r.link.acknowledged()
				all = slices.Sorted(slices.Values(all))
				if !slices.Equal(all, packets) || !slices.Equal(answered, withAnswer) {
					t.Errorf("slow %v, %s: acknowledged %v, with an answer %v", slow, when, all, answered)
				}
				if got := held(); !slices.Equal(got, inJournal) {
					t.Errorf("slow %v, %s: the journal holds %v", slow, when, got)
				}
				r.wantSent(sent...)
			}
			want("before it is read", nil, nil, nil)
			if slow {
				r.seat.BacklogSlow()
				want("when nothing more comes", []uint16{1, 2, 3, 4}, nil, []uint32{4, 5, 7})
				r.seat.BacklogRead()
				want("when it is read", []uint16{1, 2, 3, 4}, nil, []uint32{7}, "statusResponse 3", "statusResponse 4", "statusResponse 5")
			} else {
				r.seat.BacklogRead()
				want("when it is read", []uint16{1, 2, 3, 4}, []uint16{1, 2, 3}, []uint32{7}, "statusResponse 3", "statusResponse 4", "statusResponse 5")
			}
			if err := r.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What was withheld over a connection that is lost comes again over the next one, and is not
// answered twice; a car that leaves keeps nothing from being acknowledged.
func TestWithheldAndLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := new(memory)
		r := newRig(t, Options{Journal: journal}, &fakeModule{number: 2}).run()
		r.connect(button)
		r.link.take()
		packet := uint16(0)
		come := func(counter uint32) {
			packet++
			r.seat.Message(statusOf(t, counter), link.Delivery{Ack: link.Ack{Connection: 1, Packet: packet}})
			synctest.Wait()
		}
		for range 2 {
			r.seat.LinkDown(nil, true)
			advance(6 * time.Second)
			r.seat.LinkUp(link.Continued)
			come(2)
			come(3)
		}
		if known := journal.known(t); len(known.Record.Ahead) != 0 {
			t.Errorf("the journal holds %+v", known.Record.Ahead)
		}
		r.seat.BacklogRead()
		r.wantSent("statusResponse 2", "statusResponse 3")
		if _, answered := r.link.acknowledged(); !slices.Equal(answered, []uint16{3, 4}) {
			t.Errorf("acknowledged with an answer: %v", answered)
		}
		r.seat.LinkDown(nil, true)
		advance(6 * time.Second)
		r.seat.LinkUp(link.Continued)
		come(4)
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if all, _ := r.link.acknowledged(); !slices.Contains(all, packet) {
			t.Errorf("acknowledged are %v, not %d", all, packet)
		}
		if s := r.seat.Snapshot(); s.Phase != session.PhaseWaiting {
			t.Errorf("the session is %v", s.Phase)
		}
	})
}

func statusOf(t *testing.T, counter uint32) []byte {
	t.Helper()
	payload, err := protocol.EncodeClient(fleet.ClientMessage{
		Kind: fleet.ClientStatus, State: fleet.StateRunning, SessionID: "session1", Counter: counter, Device: button, Data: fmt.Appendf(nil, "s%d", counter),
	}, carID)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}
