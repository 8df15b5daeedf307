package e2e

import (
	"bytes"
	"path/filepath"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/lab/capture"
	"external-server/internal/protocol"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// The recorded messages of a real gateway are played to the server, in order.
// Where the protocol fixes the answer, which is for everything but the counters
// and the data of commands, it must be the recorded one byte by byte.
func TestReplayOfARealGateway(t *testing.T) {
	t.Parallel()
	recorded, err := capture.ReadFile(filepath.Join(servertest.Root(), "internal/lab/capture/testdata/gateway-session.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	car := recorded[0].Car
	m := brokertest.Start(t, brokertest.Options{})
	probe := func(number string) obj {
		return obj{"lib_path": servertest.Probe(t, "-DPROBE_NUMBER="+number), "config": obj{}}
	}
	config := formatD(m.Address(), obj{"1": probe("1"), "2": probe("2"), "1000": probe("1000")}, car.Car)
	config["company_name"] = car.Company
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	peer, err := brokertest.Dial(brokertest.PeerOptions{Address: m.Address()})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := peer.Subscribe(1, car.String()+"/external_server", car.String()+"/external_server_disconnect"); err != nil {
		t.Fatal(err)
	}
	// The recorded server's commands: only those of the connect sequence are
	// fixed, one per device (REC-2); later ones come from its modules.
	var answers [][]byte
	for _, r := range capture.Server(recorded) {
		if d, err := protocol.DecodeServer(r.Payload); err != nil {
			t.Fatal(err)
		} else if d.Kind != fleet.ServerCommand {
			answers = append(answers, r.Payload)
		}
	}
	receive := func() []byte {
		msg, err := peer.Receive(testwait.Patience)
		if err != nil {
			t.Fatal(err)
		}
		if msg.Topic != car.String()+"/external_server" || msg.Retain {
			t.Fatalf("unexpected message on %s, retained %t", msg.Topic, msg.Retain)
		}
		return msg.Payload
	}
	checked, connecting := 0, 2
	for _, r := range capture.Client(recorded) {
		sent, err := protocol.DecodeClient(r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if sent.Kind == fleet.ClientCommandResponse {
			continue // answered below, with our counters
		}
		if err := peer.Send(r.Topic, r.Payload); err != nil {
			t.Fatal(err)
		}
		if got := receive(); !bytes.Equal(got, answers[checked]) {
			t.Fatalf("answer %d to %v counter %d is %x, the real server said %x", checked, sent.Kind, sent.Counter, got, answers[checked])
		}
		checked++
		if sent.Kind == fleet.ClientStatus && connecting > 0 {
			if connecting--; connecting == 0 {
				answerFirstCommands(t, peer, car, sent.SessionID, receive)
			}
		}
	}
	if checked != len(answers) || checked < 100 {
		t.Fatalf("%d answers compared, %d recorded", checked, len(answers))
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// answerFirstCommands expects one empty command per device in the order of
// Connect (SEQ-32, SEQ-33) with the bytes the recorded server used but for the
// counter, and answers each.
func answerFirstCommands(t *testing.T, peer *brokertest.Peer, car fleet.CarID, session string, receive func() []byte) {
	t.Helper()
	for i, d := range []fleet.Device{
		{Module: 1, Type: 1, Role: "driving", Name: "car1_autonomy"},
		{Module: 1000, Type: 0, Role: "button_role", Name: "button1"},
	} {
		want := protocol.AppendServer(nil, fleet.ServerMessage{Kind: fleet.ServerCommand, SessionID: session, Counter: uint32(i), Device: d})
		if got := receive(); !bytes.Equal(got, want) {
			t.Fatalf("first command %d is %x, expected %x", i, got, want)
		}
	}
	for i := range 2 {
		response, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, SessionID: session, Counter: uint32(i)}, car)
		if err != nil {
			t.Fatal(err)
		}
		if err := peer.Send(car.String()+"/module_gateway", response); err != nil {
			t.Fatal(err)
		}
	}
}
