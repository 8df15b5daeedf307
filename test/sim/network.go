package sim

import (
	"math/rand/v2"
	"time"

	"external-server/internal/fleet"
)

// network is the broker and the two connections to it: clean sessions, messages
// in order, unless a fault says otherwise.
type network struct {
	w   *World
	rnd *rand.Rand

	gwDownUntil, srvDownUntil time.Duration
	gwEpoch, srvEpoch         int // count the breaks: what was under way is lost

	lose, duplicate, reorder spell
	lastUp, lastDown         time.Duration // arrival of the last message, for the order

	recent []fleet.ClientMessage // sent by the gateway, perhaps not acknowledged by the broker
}

// spell is a fault that lasts.
type spell struct {
	until time.Duration
	p     float64
}

func (n *network) hit(s spell) bool { return n.w.now < s.until && n.rnd.Float64() < s.p }

func (n *network) gwUp() bool  { return n.w.now >= n.gwDownUntil }
func (n *network) srvUp() bool { return n.w.now >= n.srvDownUntil }

func (n *network) delay() time.Duration {
	return 100*time.Microsecond + time.Duration(n.rnd.Int64N(int64(n.w.sc.Delay)))
}

// up carries a message of the gateway; false means that its connection is down
// (GW-43).
func (n *network) up(m fleet.ClientMessage) bool {
	if !n.gwUp() {
		return false
	}
	if n.w.broker != nil {
		n.w.broker.up(m)
		return true
	}
	if len(n.recent) == 4 {
		n.recent = append(n.recent[:0], n.recent[1:]...)
	}
	n.recent = append(n.recent, m)
	if n.hit(n.lose) {
		return true
	}
	n.carryUp(m, !n.hit(n.reorder))
	if n.hit(n.duplicate) {
		m.Redelivered = n.rnd.IntN(2) == 0
		n.carryUp(m, n.rnd.IntN(2) == 0)
	}
	return true
}

func (n *network) carryUp(m fleet.ClientMessage, ordered bool) {
	at := n.w.now + n.delay()
	if ordered {
		at = max(at, n.lastUp)
		n.lastUp = at
	} else {
		at += time.Duration(n.rnd.Int64N(int64(time.Second)))
	}
	gw, srv := n.gwEpoch, n.srvEpoch
	n.w.after(at-n.w.now, func() {
		if n.gwEpoch == gw && n.srvEpoch == srv && n.srvUp() {
			n.w.srv.receive(m)
		}
	})
}

// down carries a message of the server.
func (n *network) down(m outgoing) {
	if n.hit(n.lose) {
		return
	}
	n.carryDown(m, !n.hit(n.reorder))
	if n.hit(n.duplicate) {
		n.carryDown(m, n.rnd.IntN(2) == 0)
	}
}

func (n *network) carryDown(m outgoing, ordered bool) {
	at := n.w.now + n.delay()
	if ordered {
		at = max(at, n.lastDown)
		n.lastDown = at
	} else {
		at += time.Duration(n.rnd.Int64N(int64(time.Second)))
	}
	gw, srv := n.gwEpoch, n.srvEpoch
	atBroker := n.w.now + (at-n.w.now)/2
	n.w.after(at-n.w.now, func() {
		if n.gwEpoch == gw && n.srvEpoch == srv && n.gwUp() {
			n.w.gw.receive(m, atBroker)
		}
	})
}

// cutGateway breaks the gateway's connection. When it is back, its client sends
// again what the broker had not acknowledged, which the server may know already.
func (n *network) cutGateway(d time.Duration) {
	n.gwEpoch++
	if until := n.w.now + d; until > n.gwDownUntil {
		n.gwDownUntil = until
	}
	n.w.gw.linkBroke()
	again := append([]fleet.ClientMessage(nil), n.recent[n.rnd.IntN(len(n.recent)+1):]...)
	epoch, client := n.gwEpoch, n.w.gw.client
	n.w.after(n.gwDownUntil-n.w.now, func() {
		if n.gwEpoch != epoch || n.w.gw.client != client {
			return // broken again, or another client was started
		}
		for _, m := range again {
			n.carryUp(m, true)
		}
	})
}

// cutServer breaks the server's connection.
func (n *network) cutServer(d time.Duration) {
	n.srvEpoch++
	if until := n.w.now + d; until > n.srvDownUntil {
		n.srvDownUntil = until
	}
	n.w.srv.linkDown()
	epoch := n.srvEpoch
	n.w.after(n.srvDownUntil-n.w.now, func() {
		if n.srvEpoch == epoch {
			n.w.srv.linkUp()
		}
	})
}
