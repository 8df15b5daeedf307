package session_test

import (
	"fmt"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// oneModule is the smallest Modules: one module that serves every type and always
// has room. Its answers come from memory.
type oneModule struct{ number int32 }

func (m oneModule) Configured(number int32) bool                 { return number == m.number }
func (m oneModule) Recall(int32, uint32) (supported, known bool) { return true, true }
func (m oneModule) Room(int32) int                               { return 100 }
func (m oneModule) Awaited(int32) bool                           { return false }
func (m oneModule) Position(int32) int                           { return 0 }

// A caller feeds events and performs the effects in order. This one prints them, and its
// module answers at once; real ones are asked on goroutines of their own, and the answer
// is a later event.
func Example() {
	now := time.Unix(0, 0)
	s := session.New(session.Options{}, oneModule{number: 1})
	s.Quiet(true) // no notes for each message

	var step func(session.Event)
	perform := func(e session.Effect) (next []session.Event) {
		switch e.Kind {
		case session.EffectSessionStarted:
			fmt.Println("session", e.SessionID, "started")
		case session.EffectSessionRunning:
			fmt.Println("session", e.SessionID, "running")
		case session.EffectSessionEnded:
			fmt.Println("session", e.SessionID, "ended:", e.Reason)
		case session.EffectDeviceConnected:
			fmt.Println("module", e.Device.Module, "device_connected", e.Device.Role)
			next = append(next, session.Event{Kind: session.EventAdmission, Ticket: e.Ticket, Admitted: true})
		case session.EffectDeviceDisconnected:
			fmt.Println("module", e.Device.Module, "device_disconnected", e.Device.Role)
		case session.EffectForward:
			fmt.Printf("module %d forward_status %s\n", e.Device.Module, e.Data)
		case session.EffectNotifyDisconnect:
			fmt.Println("gateway: disconnect notification")
		case session.EffectPublish:
			switch e.Message.Kind {
			case fleet.ServerConnectResponse:
				fmt.Println("gateway: ConnectResponse")
			case fleet.ServerStatusResponse:
				fmt.Println("gateway: StatusResponse", e.Message.Counter)
			case fleet.ServerCommand:
				fmt.Printf("gateway: Command %d %q\n", e.Message.Counter, e.Message.Data)
			}
		}
		return next
	}
	step = func(ev session.Event) {
		var next []session.Event
		for _, e := range s.Step(now, ev) { // all of them before the next Step
			next = append(next, perform(e)...)
		}
		for _, ev := range next {
			step(ev)
		}
	}

	lamp := fleet.Device{Module: 1, Type: 1, Role: "lamp", Name: "Lamp"}
	receive := func(m fleet.ClientMessage) {
		m.SessionID = "a1b2c3d4"
		step(session.Event{Kind: session.EventMessage, Message: m})
	}
	receive(fleet.ClientMessage{Kind: fleet.ClientConnect, Devices: []fleet.Device{lamp}})
	receive(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateConnecting, Counter: 1, Device: lamp, Data: []byte("off")})
	receive(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, Counter: 0})
	receive(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: 2, Device: lamp, Data: []byte("on")})
	step(session.Event{Kind: session.EventCommands, Module: 1, Commands: []fleet.Command{{Device: lamp, Data: []byte("dim")}}})

	// Nothing is heard any more: the response to the command is overdue first.
	now = s.Deadline()
	fmt.Println("silence until", now.Sub(time.Unix(0, 0)))
	step(session.Event{Kind: session.EventDeadline})

	// Output:
	// session a1b2c3d4 started
	// module 1 device_connected lamp
	// gateway: ConnectResponse
	// module 1 forward_status off
	// gateway: StatusResponse 1
	// gateway: Command 0 ""
	// session a1b2c3d4 running
	// module 1 forward_status on
	// gateway: StatusResponse 2
	// gateway: Command 1 "dim"
	// silence until 5s
	// gateway: disconnect notification
	// module 1 device_disconnected lamp
	// session a1b2c3d4 ended: gateway silent since a command
}
