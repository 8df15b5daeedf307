package gateway

import (
	"time"

	"external-server/internal/fleet"
)

// connect sends Connect as soon as the broker is reached (GW-13). Devices may have
// left since the attempt began.
func (c *Core) connect() {
	c.listed = c.list(c.listed[:0])
	if len(c.listed) == 0 {
		c.tearDown(ReasonNoDevice)
		return
	}
	devices := make([]fleet.Device, len(c.listed))
	for n, i := range c.listed {
		devices[n] = c.devices[i].Device
	}
	c.emit(Effect{Kind: EffectSend, Message: fleet.ClientMessage{
		Kind: fleet.ClientConnect, SessionID: c.session, Devices: devices,
	}})
	c.await(PhaseConnecting, 1)
}

// await begins to wait for n messages, GW-1 for each.
func (c *Core) await(phase Phase, n int) {
	c.phase = phase
	c.answers = n
	c.waitBy = after(c.now, c.opts.Timing.MessageTimeout)
}

// counted notes one awaited message and tells whether it was the last one.
func (c *Core) counted() bool {
	c.answers--
	c.waitBy = after(c.now, c.opts.Timing.MessageTimeout)
	return c.answers == 0
}

// message handles a message of the server. Where the gateway waits for something
// particular, anything else fails the attempt (GW-13, GW-15, GW-16).
func (c *Core) message(m *fleet.ServerMessage) {
	switch c.phase {
	case PhaseConnecting:
		c.connectResponse(m)
	case PhaseStatuses:
		c.firstStatusResponse(m)
	case PhaseCommands:
		c.firstCommand(m)
	case PhaseRunning:
		c.running(m)
	}
}

func (c *Core) connectResponse(m *fleet.ServerMessage) {
	switch {
	case m.Kind != fleet.ServerConnectResponse:
		c.fail(ReasonNotConnectResponse, 0)
	case m.SessionID != c.session:
		c.fail(ReasonConnectSession, 0)
	case m.AlreadyLogged:
		c.fail(ReasonAlreadyLogged, 0)
	default:
		c.firstStatuses()
	}
}

// firstStatuses sends one CONNECTING status per listed device, all at once, with
// the error of the outage (GW-14). A device that left meanwhile is listed, so its
// status is sent too.
func (c *Core) firstStatuses() {
	for _, i := range c.listed {
		d := &c.devices[i]
		d.connected++ // GW-52: also when it is in the list already
		errorMessage := d.err
		if !d.failed {
			errorMessage = c.opts.Aggregate(d.Device, nil, nil)
		}
		c.sendStatus(i, d.status, fleet.StateConnecting, errorMessage, c.now)
	}
	c.await(PhaseStatuses, len(c.listed))
}

func (c *Core) firstStatusResponse(m *fleet.ServerMessage) {
	switch {
	case m.Kind != fleet.ServerStatusResponse:
		c.fail(ReasonNotStatusResponse, m.Counter)
		return
	case m.SessionID != c.session:
		c.fail(ReasonStatusSession, m.Counter)
		return
	}
	// The real gateway counts the answer whatever its counter; the status that is
	// not answered for that shows up 30 s later (GW-42).
	if !c.answered(m.Counter) {
		c.violation(ReasonUnknownFirstResponse, m.Counter)
	}
	if c.counted() {
		c.await(PhaseCommands, len(c.listed))
	}
}

func (c *Core) firstCommand(m *fleet.ServerMessage) {
	if m.Kind != fleet.ServerCommand {
		c.fail(ReasonNotCommand, m.Counter)
		return
	}
	if r := c.command(m); r != ReasonNone {
		c.fail(r, m.Counter)
		return
	}
	if !c.counted() {
		return
	}
	c.phase = PhaseRunning
	c.waitBy = time.Time{}
	for i := range c.devices {
		c.devices[i].takeError() // GW-17
	}
	c.emit(Effect{Kind: EffectConnected, Session: c.session})
}
