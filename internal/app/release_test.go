package app

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/support/testwait"
)

// leavingLink calls closing when the port of the found car is about to be closed, and
// heard with what was delivered to that car.
type leavingLink struct {
	link.Link
	closing func()
	heard   func(payload []byte)
}

func (l *leavingLink) Attach(id fleet.CarID, r link.Receiver) (link.Port, error) {
	if id.Car != "found" {
		return l.Link.Attach(id, r)
	}
	p, err := l.Link.Attach(id, leavingReceiver{r, l})
	return leavingPort{p, l}, err
}

type leavingPort struct {
	link.Port
	l *leavingLink
}

func (p leavingPort) Close() { p.l.closing(); p.Port.Close() }

type leavingReceiver struct {
	link.Receiver
	l *leavingLink
}

func (r leavingReceiver) Message(payload []byte, d link.Delivery) bool {
	defer r.l.heard(payload)
	return r.Receiver.Message(payload, d)
}

// TestGatewayHeardAfterRelease: a car of "*" that comes back when it has been decided
// to release it, and the link still delivers to it, is served.
func TestGatewayHeardAfterRelease(t *testing.T) {
	leaving, delivered := make(chan struct{}), make(chan struct{})
	deliver := sync.OnceFunc(func() { close(delivered) })
	l := &leavingLink{
		closing: sync.OnceFunc(func() {
			close(leaving)
			select {
			case <-delivered:
			case <-time.After(testwait.Patience):
				t.Error("the Connect was not delivered")
			}
		}),
		heard: func(payload []byte) {
			if bytes.Contains(payload, []byte("session2")) {
				deliver()
			}
		},
	}
	s := newServerAt(t, idleModule{}, func(of link.Link) link.Link { l.Link = of; return l })
	s.start()
	if err := s.peer.Subscribe(1, "company/found/external_server"); err != nil {
		t.Fatal(err)
	}
	s.connect("found", "session1")
	s.answered("session1")
	s.connect("found", "") // a Connect without id ends the session
	<-leaving
	s.connect("found", "session2")
	s.answered("session2")
}
