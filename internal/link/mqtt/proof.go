package mqtt

import (
	"time"

	"external-server/internal/link/mqtt/wire"
)

// proof is what shows that the broker takes a connection for the one of its client identifier. That packets come
// does not: they may have waited in the socket while this process stood still and another server took the connection over.
type proof struct {
	asked    uint64    // PINGREQs of this connection
	answered uint64    // PINGRESPs
	question uint64    // the one that is to be answered, 0: none
	at       time.Time // when it was asked
	proved   time.Time // when the last one was asked that was answered; zero: none was
}

// ping asks for a sign of life; c.mu is held.
func (c *conn) ping() {
	c.control = wire.AppendPingreq(c.control)
	c.proof.asked++
}

// ponged handles a PINGRESP; c.mu is held.
func (c *conn) ponged() {
	p := &c.proof
	if p.answered++; p.question != 0 && p.answered >= p.question {
		p.question, p.proved = 0, p.at
	}
}

// Prove asks the broker whether the link's connections are still the ones of their client identifiers. Proved tells
// when it has answered.
func (l *Link) Prove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.mu.Lock()
		if p := &c.proof; c.alive && p.question == 0 {
			c.ping()
			p.question, p.at = p.asked, time.Now()
		}
		c.unlockAndWake()
	}
}

// Proved returns when the connections were the ones of their client identifiers for certain; zero: that is not
// known of those that there are now.
func (l *Link) Proved() (at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range l.conns {
		c.mu.Lock()
		proved := c.proof.proved
		if !c.alive {
			proved = time.Time{}
		}
		c.mu.Unlock()
		if i == 0 || proved.Before(at) {
			at = proved
		}
	}
	return at
}
