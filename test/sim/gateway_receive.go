package sim

import (
	"slices"
	"time"

	"external-server/internal/fleet"
)

// receive takes what the broker delivers; atBroker is when it got there, because
// a client does not see what came before it subscribed.
func (g *gateway) receive(m outgoing, atBroker time.Duration) {
	if !g.subscribed || atBroker < g.subscribedAt {
		return
	}
	g.w.trace("      gateway <- %v", m)
	if m.notification {
		g.notified(m)
		return
	}
	switch g.state {
	case gwGreeting, gwStatuses, gwCommands:
		g.inAttempt(m)
	case gwRunning:
		g.inSession(m)
	}
}

func (g *gateway) notified(m outgoing) {
	switch g.state {
	case gwGreeting, gwStatuses, gwCommands: // GW-20
		g.violation("DEF-26: disconnect notification during an attempt", m)
		g.failed()
	case gwRunning: // GW-40, within the poll pause (GW-4)
		if g.dropping {
			return
		}
		g.dropping = true
		client := g.client
		g.w.after(time.Duration(g.rnd.Int64N(int64(pollPause))), func() {
			if g.client == client {
				g.teardown()
			}
		})
	}
}

// inAttempt is the connect sequence as the gateway sees it (GW-13 to GW-18).
func (g *gateway) inAttempt(m outgoing) {
	kind := fleet.ServerConnectResponse
	switch g.state {
	case gwStatuses:
		kind = fleet.ServerStatusResponse
	case gwCommands:
		kind = fleet.ServerCommand
	}
	if m.message.Kind != kind || m.message.SessionID != g.session || m.message.AlreadyLogged {
		g.violation("REC-2: unexpected message in the connect sequence", m)
		g.failed()
		return
	}
	switch g.state {
	case gwGreeting:
		g.state, g.await = gwStatuses, len(g.listed)
		g.counter = g.w.sc.StatusBase
		for _, i := range g.listed {
			g.list = append(g.list, g.w.sc.Devices[i].ID())
			if !g.publishStatus(i, fleet.StateConnecting) {
				g.failed()
				return
			}
		}
		g.wait("GW-15: no StatusResponse")
	case gwStatuses:
		if !g.answered(m) {
			g.violation("GW-15: answer to a status that was not sent", m)
			g.failed()
			return
		}
		if g.await--; g.await == 0 {
			g.state, g.await = gwCommands, len(g.listed)
		}
		g.wait("GW-15: no further StatusResponse or Command")
	case gwCommands:
		if !g.takeCommand(m) {
			return
		}
		if g.await--; g.await == 0 {
			g.step++ // no more waiting
			g.state = gwRunning
			g.aggregated = false
			return
		}
		g.wait("GW-16: no further Command")
	}
}

func (g *gateway) answered(m outgoing) bool {
	_, ok := g.outstanding[m.message.Counter]
	delete(g.outstanding, m.message.Counter)
	if ok {
		g.w.answered++
		if g.w.broker != nil {
			g.w.broker.wasAnswered(g.session, m.message.Counter)
		}
	}
	return ok
}

// inSession is normal communication (GW-30 to GW-44).
func (g *gateway) inSession(m outgoing) {
	switch m.message.Kind {
	case fleet.ServerConnectResponse: // GW-34
		if !m.message.AlreadyLogged { // the auditor knows when that is in place
			g.violation("GW-34: ConnectResponse in normal communication", m)
		}
		g.reconnect()
	case fleet.ServerStatusResponse: // the session id is not looked at (GW-50)
		if !g.answered(m) {
			g.violation("GW-32: answer to a status that is not outstanding", m)
			g.w.excuse()
			g.teardown()
			return
		}
		if len(g.outstanding) == 0 {
			g.holdUntil = 0
			if len(g.list) == 0 || !g.anyPresent() { // GW-33
				g.w.excuse()
				g.teardown()
			}
		}
	case fleet.ServerCommand:
		if m.message.SessionID != g.session { // GW-30
			g.violation("GW-30: command of another session", m)
			g.reconnect()
			return
		}
		g.takeCommand(m)
	}
}

// takeCommand answers a command (GW-31, GW-35 to GW-39); false means that the
// connection is over.
func (g *gateway) takeCommand(m outgoing) bool {
	c := m.message
	if g.hasCommand && g.command != 0 && c.Counter != g.command+1 {
		g.violation("GW-31: command counter out of order", m)
		g.reconnect()
		return false
	}
	g.command, g.hasCommand = c.Counter, true
	id := c.Device.ID()
	response := fleet.ResponseOK
	if !slices.Contains(g.list, id) {
		known, served := false, false
		for i, d := range g.w.sc.Devices {
			known = known || d.Module == id.Module
			served = served || d.Module == id.Module && d.Type == id.Type
			if d.ID() == id && !g.present[i] {
				served = true
			}
		}
		switch {
		case !known: // GW-35
			g.violation("GW-35: command for a module the gateway does not have", m)
			g.reconnect()
			return false
		case served:
			response = fleet.ResponseDeviceNotConnected // GW-37
		default:
			response = fleet.ResponseDeviceNotSupported // GW-38
		}
	}
	if !g.w.net.up(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, SessionID: g.session, Counter: c.Counter, Response: response}) {
		g.w.excuse()
		g.teardown() // GW-43
		return false
	}
	return true
}
