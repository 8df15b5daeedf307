package car

import (
	"external-server/internal/fleet"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// HandOver makes heir take this car's place on the link when Run ends: what the
// gateway sends meanwhile waits for the heir's Run, and nothing is lost between
// them (a Connect that nobody hears costs the gateway 15 s). Call it while Run runs; the
// heir is new, and Attach does nothing for it if it has the place.
func (c *Car) HandOver(heir *Car) { c.heir.Store(heir) }

// Leave makes a heir leave the link, unless a message of the gateway waits for its
// Run: then it has heard something, and Attach and Run serve it. One that has left
// refuses what the link still delivers, which therefore takes it for the message of an unknown
// car; all that remains is Close. Nobody may call Run at the same time.
func (c *Car) Leave() (left bool) {
	if !c.mail.closeUnheard() {
		return false
	}
	if c.port != nil {
		c.port.Close()
		c.port = nil
	}
	return true
}

// greeted tells whether a Connect waits for Run. Its gateway has given up the session
// before; a notification of the end of that one would fail its attempt (GW-20).
func (c *Car) greeted() bool {
	c.mail.mu.Lock()
	defer c.mail.mu.Unlock()
	var decoder protocol.Decoder
	for _, it := range c.mail.items {
		if it.kind != session.EventMessage {
			continue
		}
		if m, err := decoder.Client(it.payload); err == nil && m.Kind == fleet.ClientConnect {
			return true
		}
	}
	return false
}

// bequeath gives the heir, if there is one, the port and what was not handled. The
// heir hears everything in the order of arrival: the state of the link, then what
// is queued here, then what this car refuses from now on (see Message), and at last
// what the link delivers to it by itself.
func (c *Car) bequeath() (done bool) {
	heir := c.heir.Load()
	if heir == nil || c.port == nil {
		return false
	}
	heir.port = c.port
	heir.session.Succeed(c.session)
	heir.born = c.born
	heir.counters.lastSeen.Store(c.counters.lastSeen.Load()) // until it hears something itself
	heir.counters.heardAt.Store(c.counters.heardAt.Load())
	c.mu.Lock()
	up := c.view.LinkUp
	c.mu.Unlock()
	if up {
		heir.linkChanged(item{kind: session.EventLinkUp})
	}
	c.mail.passOn(func(it item) {
		switch it.kind {
		case session.EventMessage:
			heir.Message(it.payload, it.delivery)
		case session.EventLinkUp, session.EventLinkDown, kindDropped:
			heir.linkChanged(it)
		}
	})
	c.port.HandOver(heir)
	return true
}
