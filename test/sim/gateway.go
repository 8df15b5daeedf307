package sim

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"external-server/internal/fleet"
)

// Limits of the real gateway (GW-1 to GW-7).
const (
	answerLimit = 5 * time.Second
	statusLimit = 30 * time.Second
	retryPause  = 10 * time.Second
	pollPause   = 3 * time.Second
	leaveStall  = 10 * time.Second
)

// gwState is what the gateway is doing.
type gwState uint8

const (
	gwIdle     gwState = iota // no connection; the next device status starts an attempt
	gwGreeting                // waits for the ConnectResponse (GW-13)
	gwStatuses                // waits for the StatusResponses (GW-15)
	gwCommands                // waits for the first Commands (GW-16)
	gwRunning
	gwPausing // before the next attempt (GW-3)
)

// gateway is a model of the module gateway, from the GW rules of docs/protocol.md.
type gateway struct {
	w   *World
	rnd *rand.Rand

	present []bool           // per device of the scenario: registered (GW-12)
	list    []fleet.DeviceID // reported as connected; not cleared on reconnect (GW-52)

	state        gwState
	client       int           // generation of the MQTT client; plans of an earlier one are void
	subscribed   bool          // an automatic reconnect does not subscribe again (GW-55)
	subscribedAt time.Duration // messages before that are not delivered

	session     string
	counter     uint32 // of the next status
	outstanding map[uint32]time.Duration
	oldest      time.Duration // no outstanding status was sent earlier
	checking    bool
	step        int // generation of the wait for the next message
	listed      []int
	await       int

	command    uint32 // last counter
	hasCommand bool
	holdUntil  time.Duration // GW-7
	dropping   bool          // acts on a notification within its poll pause
	aggregated bool          // an error of the outage goes with the next CONNECTING (GW-53)
}

func (g *gateway) start() {
	for i := range g.present {
		if g.present[i] = g.w.sc.Present[i]; g.present[i] {
			g.planStatus(i)
		}
	}
}

// planStatus lets a device report now and then; planned once per registration.
func (g *gateway) planStatus(i int) {
	every := g.w.sc.Every[i]
	g.w.after(every/2+time.Duration(g.rnd.Int64N(int64(every))), func() {
		if g.present[i] {
			g.deviceStatus(i)
			g.planStatus(i)
		}
	})
}

// deviceStatus is a status of a device, ready to be sent.
func (g *gateway) deviceStatus(i int) {
	switch g.state {
	case gwIdle:
		g.aggregated = true
		g.connect() // GW-10, GW-40
	case gwRunning:
		if g.w.now < g.holdUntil {
			g.aggregated = true
			return
		}
		state := fleet.StateRunning
		if id := g.w.sc.Devices[i].ID(); !slices.Contains(g.list, id) {
			state = fleet.StateConnecting // GW-52
			g.list = append(g.list, id)
		}
		g.send(i, state)
	default:
		g.aggregated = true // GW-19
	}
}

// joins registers a device. One that is still in the list will not say
// CONNECTING, and the server will not answer it for a while (GW-52).
func (g *gateway) joins(i int) {
	if g.present[i] {
		return
	}
	g.present[i] = true
	if slices.Contains(g.list, g.w.sc.Devices[i].ID()) {
		g.w.excuse()
	}
	g.planStatus(i)
}

func (g *gateway) leaves(i int) {
	if !g.present[i] {
		return
	}
	g.present[i] = false
	if g.state != gwRunning {
		return // it is not there any more when the next attempt starts
	}
	if at := slices.Index(g.list, g.w.sc.Devices[i].ID()); at >= 0 {
		g.list = slices.Delete(g.list, at, at+1)
		g.send(i, fleet.StateDisconnect)
		g.holdUntil = g.w.now + leaveStall
	}
}

func (g *gateway) anyPresent() bool { return slices.Contains(g.present, true) }

// connect starts an attempt with a new session id and a new MQTT client (GW-11).
func (g *gateway) connect() {
	g.teardown()
	g.listed = g.listed[:0]
	for i, here := range g.present {
		if here {
			g.listed = append(g.listed, i)
		}
	}
	if len(g.listed) == 0 {
		return
	}
	g.state = gwGreeting
	client := g.client
	g.w.after(time.Duration(g.rnd.Int64N(int64(50*time.Millisecond))), func() {
		if g.client != client {
			return
		}
		if !g.w.net.gwUp() {
			g.failed()
			return
		}
		g.session = g.newID()
		g.subscribed, g.subscribedAt = true, g.w.now
		m := fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: g.session}
		for _, i := range g.listed {
			m.Devices = append(m.Devices, g.w.sc.Devices[i])
		}
		g.w.net.up(m)
		g.wait("GW-13: no ConnectResponse")
	})
}

const idLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func (g *gateway) newID() string {
	var id [8]byte
	for i := range id {
		id[i] = idLetters[g.rnd.IntN(len(idLetters))]
	}
	return string(id[:])
}

// teardown ends the MQTT client and forgets the session (GW-11).
func (g *gateway) teardown() {
	g.client++
	g.step++
	g.state = gwIdle
	g.subscribed, g.checking, g.dropping, g.hasCommand = false, false, false, false
	if len(g.outstanding) > 0 {
		g.aggregated = true // GW-53
	}
	clear(g.outstanding)
	g.counter = g.w.sc.StatusBase
	g.holdUntil = 0
	g.w.net.recent = g.w.net.recent[:0]
}

// reconnect leaves a running session for a new attempt at once. What the server
// sends to the old session meanwhile may reach the new attempt.
func (g *gateway) reconnect() {
	g.w.excuse()
	g.connect()
}

// failed ends an attempt (GW-20).
func (g *gateway) failed() {
	g.w.excuse()
	g.teardown()
	g.state = gwPausing
	client := g.client
	g.w.after(retryPause, func() {
		if g.client == client {
			g.connect()
		}
	})
}

// wait limits the wait for the next message of an attempt (GW-1).
func (g *gateway) wait(rule string) {
	g.step++
	step := g.step
	g.w.after(answerLimit, func() {
		if g.step == step {
			g.overdue(rule)
			g.failed()
		}
	})
}

func (g *gateway) linkBroke() {
	if g.subscribed {
		g.subscribed = false // GW-55
	}
}

// restart is a new process: nothing is remembered.
func (g *gateway) restart() {
	g.teardown()
	g.list = g.list[:0]
	g.aggregated = false
}

// violation is a message that the real gateway does not forgive. Without a fault
// to excuse it, it is the server's.
func (g *gateway) violation(text string, m outgoing) {
	if !g.w.excused() {
		g.w.fail("%s: %+v in session %q, gateway state %d", text, m, g.session, g.state)
	}
}

// overdue is a message that did not come in time.
func (g *gateway) overdue(rule string) {
	if !g.w.excused() {
		g.w.fail("%s in time, session %q, gateway state %d", rule, g.session, g.state)
	}
}

// send publishes a status of normal communication (GW-51).
func (g *gateway) send(i int, state fleet.DeviceState) {
	if !g.publishStatus(i, state) {
		g.w.excuse()
		g.teardown() // GW-43
	}
}

func (g *gateway) publishStatus(i int, state fleet.DeviceState) bool {
	d := g.w.sc.Devices[i]
	m := fleet.ClientMessage{
		Kind:      fleet.ClientStatus,
		SessionID: g.session,
		Counter:   g.counter,
		State:     state,
		Device:    d,
		Data:      payload(g.session, g.counter, d),
	}
	if state == fleet.StateConnecting && g.aggregated {
		m.Error = append([]byte("e"), m.Data...)
		g.aggregated = false
	}
	g.counter++
	g.outstanding[m.Counter] = g.w.now
	if !g.w.net.up(m) {
		return false
	}
	g.w.sent++
	if !g.checking {
		g.oldest = g.w.now
		g.checkOverdue(statusLimit)
	}
	return true
}

// payload is what tells the auditor which status it sees.
func payload(session string, counter uint32, d fleet.Device) []byte {
	b := make([]byte, 0, 40)
	b = append(b, session...)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(counter), 10)
	b = append(b, ' ')
	return append(b, d.Role...)
}

// checkOverdue reconnects when a status is unanswered for too long (GW-2, GW-42).
func (g *gateway) checkOverdue(in time.Duration) {
	g.checking = true
	client := g.client
	g.w.after(in, func() {
		if g.client != client {
			return
		}
		g.checking = false
		if len(g.outstanding) == 0 {
			return
		}
		oldest := g.w.now
		for _, at := range g.outstanding {
			oldest = min(oldest, at)
		}
		if g.w.now-oldest >= statusLimit {
			for counter, at := range g.outstanding {
				if at == oldest {
					g.w.trace("      gateway: status %d was not answered", counter)
				}
			}
			g.overdue("GW-42: a status was not answered")
			g.reconnect()
			return
		}
		g.checkOverdue(oldest + statusLimit - g.w.now)
	})
}
