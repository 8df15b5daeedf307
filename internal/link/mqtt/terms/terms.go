// Package terms makes the CONNECT of a connection, and tells from the broker's answer what
// the two have agreed upon. It is plain functions of both.
package terms

import (
	"fmt"
	"time"

	"external-server/internal/link/mqtt/wire"
)

const (
	// ReceiveMaximum is how many messages the broker may send before the first of them is
	// acknowledged, where it keeps the session.
	ReceiveMaximum = 4096
	// willDelay gives the next process the time to come before "offline" is published, s.
	willDelay = 25
)

// Asked is what a connection asks for.
type Asked struct {
	Version            wire.Version
	ClientID           string
	Username, Password string
	KeepAlive          time.Duration
	Window             int           // bounds the messages that wait for the broker's acknowledgement
	Will               *wire.Will    // nil: none
	Shard              bool          // it would have a session that is kept
	Keep               bool          // and asks for one
	Fresh              bool          // what the broker holds is of no use any more
	Expiry             time.Duration // of the session, whole seconds
}

// Connect returns the packet that asks.
func (a Asked) Connect() wire.ConnectOptions {
	out := wire.ConnectOptions{
		Version: a.Version, ClientID: a.ClientID, Username: a.Username, Password: a.Password,
		KeepAlive: uint16(a.KeepAlive / time.Second), Will: a.Will,
	}
	switch {
	case !a.Keep:
	case a.Version == wire.V5:
		out.Continue = !a.Fresh
		out.SessionExpiry = uint32(a.Expiry / time.Second)
		out.ReceiveMaximum = ReceiveMaximum
		out.WillDelay = willDelay
	default: // another CONNECT has removed what is of no use
		out.Continue = true
	}
	return out
}

// Terms are what a connection and its broker have agreed upon.
type Terms struct {
	Version    wire.Version
	Persistent bool // the broker keeps the session, receivers acknowledge
	Continued  bool // it has kept the session before this connection
	Window     int
	MaxPacket  int // bytes; 0: no limit
	QoS        byte
	Retain     bool
	KeepAlive  time.Duration

	Unfit    string // why this broker cannot serve a shard that is fenced
	Declined string // why it keeps no session, to be said; empty: it does, or none is wanted
	Misnamed bool   // it gives connections other client identifiers than they ask for
}

// Clean returns the terms of a clean session with a broker of version 3.1.1, which says nothing
// about its limits.
func (a Asked) Clean() Terms {
	return Terms{Version: a.Version, Window: a.Window, QoS: 1, Retain: true, KeepAlive: a.KeepAlive}
}

// Agree returns the terms that the broker's CONNACK makes. fresh is as Asked.Fresh, but now.
func (a Asked) Agree(answer *wire.Packet, fresh bool) Terms {
	t := a.Clean()
	t.Persistent = a.Keep
	if s := answer.Server; s != nil {
		t.Window = min(t.Window, int(s.ReceiveMaximum))
		t.MaxPacket = int(s.MaximumPacketSize)
		t.QoS = min(1, s.MaximumQoS)
		t.Retain = s.RetainAvailable
		if s.HasKeepAlive && s.KeepAlive > 0 {
			t.KeepAlive = time.Duration(s.KeepAlive) * time.Second
		}
		switch {
		case !a.Keep:
		case s.AssignedClientID != "" && s.AssignedClientID != a.ClientID:
			t.Persistent, t.Misnamed = false, true
			t.Unfit = fmt.Sprintf("the broker has given the connection the client identifier %q instead of %q", s.AssignedClientID, a.ClientID)
		case s.HasSessionExpiry && s.SessionExpiry == 0:
			t.Persistent, t.Unfit = false, "the broker keeps no sessions (it has answered with a session expiry of 0)"
			t.Declined = t.Unfit
		case t.QoS == 0:
			t.Persistent, t.Unfit = false, "the broker allows only QoS 0"
			t.Declined = t.Unfit
		case !t.Retain:
			t.Unfit = "the broker keeps no retained messages"
		}
	}
	if a.Shard && !a.Keep {
		t.Unfit = "the broker speaks only MQTT 3.1.1"
		t.Declined = t.Unfit + ", where it may keep sessions for ever; with \"client_id\" in the configuration they are kept nevertheless"
	}
	t.Continued = t.Persistent && answer.Present && !fresh
	return t
}
