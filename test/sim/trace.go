package sim

import (
	"fmt"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

func (a *auditor) traceMessage(m fleet.ClientMessage) {
	if a.w.log == nil {
		return
	}
	switch m.Kind {
	case fleet.ClientConnect:
		a.w.trace("server <- connect %q %v, redelivered %v", m.SessionID, m.Devices, m.Redelivered)
	case fleet.ClientStatus:
		a.w.trace("server <- status %q %d %v %v %q", m.SessionID, m.Counter, m.State, m.Device, m.Data)
	case fleet.ClientCommandResponse:
		a.w.trace("server <- command response %q %d %v", m.SessionID, m.Counter, m.Response)
	default:
		a.w.trace("server <- empty message")
	}
}

// describe names an effect for a person.
func describe(e *session.Effect) string {
	switch e.Kind {
	case session.EffectPublish:
		switch m := e.Message; m.Kind {
		case fleet.ServerConnectResponse:
			return fmt.Sprintf("connect response %q, already logged %v", m.SessionID, m.AlreadyLogged)
		case fleet.ServerStatusResponse:
			return fmt.Sprintf("status response %q %d", m.SessionID, m.Counter)
		default:
			return fmt.Sprintf("command %q %d %v priority %d %q", m.SessionID, m.Counter, m.Device, m.Device.Priority, m.Data)
		}
	case session.EffectNotifyDisconnect:
		return "disconnect notification"
	case session.EffectDiscardOutgoing:
		return "discard outgoing messages"
	case session.EffectDeviceConnected:
		return fmt.Sprintf("device_connected %v, ticket %d, first %v", e.Device, e.Ticket, e.First)
	case session.EffectForward:
		return fmt.Sprintf("forward status %d of %v %q", e.Counter, e.Device, e.Data)
	case session.EffectDeviceDisconnected:
		return fmt.Sprintf("device_disconnected %v %v", e.Device, e.Disconnect)
	case session.EffectAck:
		return fmt.Sprintf("command_ack %d %q of module %d", e.Counter, e.Command.Data, e.Module)
	case session.EffectSessionStarted:
		return fmt.Sprintf("session %q starts", e.SessionID)
	case session.EffectSessionRunning:
		return fmt.Sprintf("session %q is running", e.SessionID)
	case session.EffectSessionEnded:
		return fmt.Sprintf("session %q ends: %s", e.SessionID, e.Reason)
	}
	return fmt.Sprintf("note: %s %v %d", e.Note, e.Device, e.Counter)
}
