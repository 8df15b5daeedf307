package sim

import "external-server/internal/fleet"

// firstCame notes the first status of a listed device (SEQ-12, DEF-3).
func (c *ledger) firstCame(m fleet.ClientMessage) {
	if m.Kind != fleet.ClientStatus || m.State != fleet.StateConnecting {
		return
	}
	if l := c.listedDevice(m.Device.ID()); l != nil && !l.came {
		l.came, l.counter = true, m.Counter
	}
}

// firstsWaiting tells whether a first status that came was not answered.
func (c *ledger) firstsWaiting() bool {
	for i := range c.listed {
		if c.listed[i].came && !c.listed[i].answered {
			return true
		}
	}
	return false
}

// firstAnswered checks the answer to a first status: each that came gets one, and
// the module of a connected device has it before.
func (a *auditor) firstAnswered(counter uint32, forwarded bool) {
	c := &a.current
	for i := range c.listed {
		l := &c.listed[i]
		if l.came && !l.answered && l.counter == counter && l.forwarded == forwarded && (forwarded || !c.live[l.device.ID()]) {
			l.answered = true
			return
		}
	}
	a.fail("an answer is a promise: first status %d was answered and not forwarded, or never came", counter)
}

// checkFirsts: a first status is answered at once, or when its module has room.
func (a *auditor) checkFirsts() {
	c := &a.current
	if !c.open || !c.greeted || c.running {
		return
	}
	for i := range c.listed {
		l := &c.listed[i]
		if l.came && !l.answered && c.live[l.device.ID()] && a.roomLeft(l.device.Module) <= 0 {
			if a.now.After(c.statuses.noRoom) { // the clock may have gone back
				c.statuses.noRoom = a.now
			}
			return
		}
	}
	if c.firstsWaiting() && a.now.Sub(c.statuses.noRoom) > roomRetry && !a.overdue {
		a.fail("SEQ-12: a first status was not answered: %+v", c.listed)
	}
}
