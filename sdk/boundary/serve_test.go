package boundary

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// scripted is a module whose calls answer with what the call carries.
type scripted struct{}

func (scripted) Number() int32                   { return 5 }
func (scripted) Supports(deviceType uint32) bool { return deviceType == 3 || deviceType == 900 }
func (scripted) Open(_ context.Context, open *pb.Open) (Context, error) {
	if open.GetCar() == "" {
		return nil, errors.New("no car")
	}
	return scripted{}, nil
}

func (scripted) Call(_ context.Context, call *pb.Call) error {
	switch data := string(call.GetData()); data {
	case "":
		return nil
	case "code":
		return &Error{Code: -6}
	case "code and text":
		return &Error{Code: -6, Text: "why"}
	case "large":
		return errors.New(strings.Repeat("x", MaxFrame))
	case "panic":
		panic("as asked")
	default:
		return errors.New(data)
	}
}

func (scripted) Poll(_ context.Context, _ *pb.Poll, commands *Commands) error {
	device := func(role string) *pb.Device { return &pb.Device{Role: role} }
	commands.Fetching()
	commands.Now(&pb.Command{Device: device("now"), Data: []byte("1")})
	commands.Now(&pb.Command{Device: device("\xff")})
	commands.Add(&pb.Command{Device: device("with the answer"), Data: []byte("2")})
	commands.Add(&pb.Command{Device: device("large"), Data: make([]byte, pb.MaxCommandData+1)})
	commands.Dropped(3, "another reason")
	return errors.New("and an error")
}

func (scripted) Close(context.Context) error { return nil }

// serveScripted returns the server's end of a served connection, after the greeting.
func serveScripted(t *testing.T, name string) *Conn {
	t.Helper()
	server, ours := pair(t)
	served := make(chan error, 1)
	go func() {
		served <- Serve(context.Background(), ours, name, func(number int32) (Module, error) {
			if number == 13 {
				return nil, errors.New("unlucky")
			}
			return scripted{}, nil
		})
	}()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; err != nil {
			t.Errorf("the end of the connection is an error: %v", err)
		}
	})
	hello := &pb.ModuleFrame{}
	if err := server.Receive(hello); err != nil || hello.GetHello().GetProtocol() != Protocol || !utf8.ValidString(hello.GetHello().GetName()) {
		t.Fatalf("greeting %v, %v", hello, err)
	}
	return server
}

// ask sends a request and returns the answer and what came before it.
func ask(t *testing.T, server *Conn, frame *pb.ServerFrame) (*pb.Result, []*pb.ModuleFrame) {
	t.Helper()
	frame.Id = 77
	if err := server.Send(frame); err != nil {
		t.Fatal(err)
	}
	var early []*pb.ModuleFrame
	for {
		answer := &pb.ModuleFrame{}
		if err := server.Receive(answer); err != nil {
			t.Fatal(err)
		}
		if answer.GetId() != 77 {
			t.Fatalf("answer to %d, expected 77", answer.GetId())
		}
		if answer.GetResult() != nil {
			return answer.GetResult(), early
		}
		early = append(early, answer)
	}
}

func start(number int32) *pb.ServerFrame {
	return &pb.ServerFrame{Kind: &pb.ServerFrame_Start{Start: &pb.Start{ModuleNumber: number}}}
}

func open(car string) *pb.ServerFrame {
	return &pb.ServerFrame{Kind: &pb.ServerFrame_Open{Open: &pb.Open{Context: 1, Car: car}}}
}

func call(context uint32, function pb.Call_Function, deviceType uint32, data string) *pb.ServerFrame {
	return &pb.ServerFrame{Kind: &pb.ServerFrame_Call{Call: &pb.Call{
		Context: context, Function: function, Device: &pb.Device{Type: deviceType}, Data: []byte(data)}}}
}

func TestServe(t *testing.T) {
	server := serveScripted(t, "name\xff")
	if r, _ := ask(t, server, start(13)); r.GetCode() != CodeNotOK || r.GetError() != "unlucky" {
		t.Errorf("a module that does not load: %v", r)
	}
	if r, _ := ask(t, server, start(0)); r.GetModuleNumber() != 5 || !slices.Equal(r.GetSupportedTypes(), []uint32{3}) {
		t.Errorf("start: %v", r)
	}
	if r, _ := ask(t, server, open("")); r.GetError() != "no car" {
		t.Errorf("open without car: %v", r)
	}
	if r, _ := ask(t, server, open("car")); r.GetCode() != 0 {
		t.Errorf("open: %v", r)
	}
	if r, _ := ask(t, server, open("car")); !strings.Contains(r.GetError(), "open already") {
		t.Errorf("open twice: %v", r)
	}
	const status = pb.Call_FORWARD_STATUS
	tests := map[string]struct {
		frame *pb.ServerFrame
		code  int32
		text  string
	}{
		"OK":              {call(1, status, 3, ""), 0, ""},
		"code":            {call(1, status, 3, "code"), -6, ""},
		"code and text":   {call(1, status, 3, "code and text"), -6, "why"},
		"text":            {call(1, status, 3, "some text"), CodeNotOK, "some text"},
		"not UTF-8":       {call(1, status, 3, "a\xffb"), CodeNotOK, "a\uFFFDb"},
		"panic":           {call(1, status, 3, "panic"), CodeNotOK, "the module panicked: as asked"},
		"unknown context": {call(2, status, 3, ""), CodeContextIncorrect, "there is no context 2"},
		"supported":       {call(1, pb.Call_DEVICE_CONNECTED, 900, ""), 0, ""},
		"not supported":   {call(1, pb.Call_DEVICE_CONNECTED, 4, ""), CodeNotOK, ""},
		"unknown frame":   {&pb.ServerFrame{}, CodeNotOK, "unknown frame; the server is newer than this module"},
		"large error":     {call(1, status, 3, "large"), CodeNotOK, "answer not sent"},
		"type":            {&pb.ServerFrame{Kind: &pb.ServerFrame_Supports{Supports: &pb.Supports{Type: 900}}}, 0, ""},
		"other type":      {&pb.ServerFrame{Kind: &pb.ServerFrame_Supports{Supports: &pb.Supports{Type: 901}}}, CodeNotOK, ""},
	}
	for name, test := range tests {
		r, _ := ask(t, server, test.frame)
		if r.GetCode() != test.code || r.GetError() != test.text && !(name == "large error" && strings.HasPrefix(r.GetError(), test.text)) {
			t.Errorf("%s: code %d, text %.200q", name, r.GetCode(), r.GetError())
		}
	}
	closing := &pb.ServerFrame{Kind: &pb.ServerFrame_Close{Close: &pb.Close{Context: 1}}}
	if r, _ := ask(t, server, closing); r.GetCode() != 0 {
		t.Errorf("close: %v", r)
	}
	if r, _ := ask(t, server, closing); r.GetCode() != CodeContextIncorrect {
		t.Errorf("close twice: %v", r)
	}
}

// TestPoll: commands keep their order; what no car can be sent is dropped and counted.
func TestPoll(t *testing.T) {
	server := serveScripted(t, "poll")
	ask(t, server, start(0))
	ask(t, server, open("car"))
	r, early := ask(t, server, &pb.ServerFrame{Kind: &pb.ServerFrame_Poll{Poll: &pb.Poll{Context: 1}}})
	if len(early) != 2 || early[0].GetFetching() == nil || early[1].GetCommand().GetDevice().GetRole() != "now" {
		t.Errorf("before the answer: %v", early)
	}
	if len(r.GetCommands()) != 1 || r.GetCommands()[0].GetDevice().GetRole() != "with the answer" || r.GetError() != "and an error" {
		t.Errorf("answer: %v", r)
	}
	if r.GetUnusableCommands() != 5 || !strings.Contains(r.GetUnusableReason(), "not UTF-8") {
		t.Errorf("%d commands were dropped: %s", r.GetUnusableCommands(), r.GetUnusableReason())
	}
}

func TestCallsBeforeStart(t *testing.T) {
	server, ours := pair(t)
	if err := server.Send(open("car")); err != nil {
		t.Fatal(err)
	}
	if err := Serve(context.Background(), ours, "x", nil); err == nil || !strings.Contains(err.Error(), "instead of Start") {
		t.Errorf("got %v", err)
	}
}

// FuzzServe: whatever comes on the connection, the module's side answers it or ends
// with an error; it does not crash.
func FuzzServe(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{2, 0, 0, 0, 0x12, 0})
	f.Add([]byte{2, 0, 0, 0, 0x12, 0, 2, 0, 0, 0, 0x22, 0, 2, 0, 0, 0, 0x2a, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		server, ours := pair(t)
		go func() {
			_, _ = server.socket.Write(data)
			_ = server.CloseWrite()
		}()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for server.Receive(&pb.ModuleFrame{}) == nil {
			}
		}()
		_ = Serve(context.Background(), ours, "fuzzed", func(int32) (Module, error) { return scripted{}, nil })
		_ = ours.Close()
		<-done
	})
}
