package gateway

import (
	"time"

	"external-server/internal/fleet"
)

// running handles a message in normal communication (GW-30 to GW-44).
func (c *Core) running(m *fleet.ServerMessage) {
	switch m.Kind {
	case fleet.ServerConnectResponse: // GW-34
		if m.AlreadyLogged {
			c.drop(ReasonCalled, 0)
		} else {
			c.drop(ReasonConnectResponse, 0)
		}
	case fleet.ServerStatusResponse: // its session id is not looked at (GW-50)
		switch {
		case !c.answered(m.Counter):
			c.drop(ReasonUnknownResponse, m.Counter) // GW-32
		case c.outstanding.len() == 0 && c.noneConnected():
			c.drop(ReasonNoDevice, 0) // GW-33
		}
	case fleet.ServerCommand:
		if r := c.command(m); r != ReasonNone {
			c.drop(r, m.Counter)
		}
	default:
		c.violation(ReasonEmptyMessage, 0)
	}
}

// answered notes the answer to a status; false: no such status is outstanding.
func (c *Core) answered(counter uint32) bool {
	s, ok := c.outstanding.ack(counter)
	if ok {
		c.emit(Effect{Kind: EffectAnswered, Device: c.devices[s.device].Device, Counter: counter, Sent: s.at, Planned: s.planned})
	}
	return ok
}

// command checks a command and answers it; the reason says why the connection
// cannot go on instead.
func (c *Core) command(m *fleet.ServerMessage) Reason {
	if m.SessionID != c.session {
		return ReasonForeignCommand // GW-30
	}
	if c.lastCommand != 0 && m.Counter != c.lastCommand+1 {
		return ReasonCommandGap // GW-31
	}
	configured, supported := c.opts.support(m.Device.Module, m.Device.Type)
	if !configured {
		return ReasonUnconfiguredModule // GW-35
	}
	c.lastCommand = m.Counter
	response := fleet.ResponseOK
	i := c.find(m.Device.ID())
	switch {
	case !supported:
		response = fleet.ResponseDeviceNotSupported // GW-38
	case i < 0 || c.devices[i].connected == 0:
		response = fleet.ResponseDeviceNotConnected // GW-37
	}
	c.emit(Effect{Kind: EffectCommand, Device: m.Device, Data: m.Data, Counter: m.Counter, Response: response})
	c.emit(Effect{Kind: EffectSend, Message: fleet.ClientMessage{
		Kind: fleet.ClientCommandResponse, SessionID: c.session, Counter: m.Counter, Response: response,
	}})
	if response != fleet.ResponseOK {
		return ReasonNone
	}
	d := &c.devices[i]
	switch immediate := c.opts.immediate(d.Module); {
	case len(m.Data) == 0, !d.registered, immediate && m.Device.Priority != d.Priority: // GW-39, GW-52, GW-54
		c.emit(Effect{Kind: EffectCommandDropped, Device: d.Device, Data: m.Data, Counter: m.Counter})
	case immediate:
		c.emit(Effect{Kind: EffectDeliver, Device: d.Device, Data: m.Data, Counter: m.Counter})
	default:
		c.queue(d, command{data: m.Data, counter: m.Counter})
	}
	return ReasonNone
}

// sent is a status that waits for its answer.
type sent struct {
	counter  uint32
	answered bool
	device   int
	at       time.Time
	planned  time.Time
	data     []byte
}

// outstanding holds the unanswered statuses of a connection, oldest first. Their
// counters are consecutive, so an answer finds its status by subtraction.
type outstanding struct {
	all   []sent
	head  int // the oldest that is not answered; those before are done
	count int // not answered
}

func (o *outstanding) len() int { return o.count }

func (o *outstanding) push(s sent) {
	if o.head > 0 && len(o.all) == cap(o.all) { // reuse the room of those that are done
		n := copy(o.all, o.all[o.head:])
		clear(o.all[n:])
		o.all = o.all[:n]
		o.head = 0
	}
	o.all = append(o.all, s)
	o.count++
}

// oldest returns when the oldest unanswered status was sent; zero: there is none.
func (o *outstanding) oldest() time.Time {
	if o.head == len(o.all) {
		return time.Time{}
	}
	return o.all[o.head].at
}

// first returns the counter of the oldest unanswered status, or 0.
func (o *outstanding) first() uint32 {
	if o.head == len(o.all) {
		return 0
	}
	return o.all[o.head].counter
}

func (o *outstanding) ack(counter uint32) (sent, bool) {
	if o.head == len(o.all) {
		return sent{}, false
	}
	n := uint64(counter - o.all[o.head].counter) // modulo 2^32; huge for one that is done
	if n >= uint64(len(o.all)-o.head) || o.all[o.head+int(n)].answered {
		return sent{}, false
	}
	s := &o.all[o.head+int(n)]
	s.answered = true
	s.data = nil
	o.count--
	found := *s
	for o.head < len(o.all) && o.all[o.head].answered {
		o.head++
	}
	if o.head == len(o.all) {
		o.all, o.head = o.all[:0], 0
	}
	return found, true
}

// drain hands every unanswered status over and forgets it.
func (o *outstanding) drain(each func(*sent)) {
	for i := o.head; i < len(o.all); i++ {
		if !o.all[i].answered {
			each(&o.all[i])
		}
	}
	clear(o.all)
	o.all, o.head, o.count = o.all[:0], 0, 0
}
