package module

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fleet-protocol/external-server/sdk/boundary"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// lamps is a module that answers a status with a command.
type lamps struct{}

func (lamps) Number() int32                   { return 9 }
func (lamps) Supports(deviceType uint32) bool { return deviceType == 4 }
func (lamps) Open(_ context.Context, car Car) (Context, error) {
	if value, _ := car.Value("bad"); value != "" {
		return nil, errors.New("the key bad is not wanted")
	}
	return &lampsContext{car: car}, nil
}

type lampsContext struct {
	Queue
	car Car
}

func (c *lampsContext) DeviceConnected(context.Context, Device) error { return nil }
func (c *lampsContext) DeviceDisconnected(_ context.Context, _ Device, reason Reason) error {
	if reason == Timeout {
		return fmt.Errorf("wrapped: %w", Code(-7))
	}
	return Code(-4)
}

func (c *lampsContext) Status(ctx context.Context, d Device, data []byte) error {
	c.Push(Command{Device: d, Data: fmt.Appendf(nil, "%s/%s %v %s %t", c.car.Company, c.car.Name, c.car.Config, data, Redelivered(ctx))})
	return nil
}

func (c *lampsContext) StatusError(_ context.Context, d Device, message []byte) error {
	c.Push(Command{Device: d, Data: message})
	return nil
}

func (c *lampsContext) CommandDelivered(_ context.Context, command Command) error {
	c.Push(command)
	return nil
}

func (c *lampsContext) Close(context.Context) error { return nil }

// connect serves the module and returns the server's end.
func connect(t *testing.T) *boundary.Conn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*boundary.Conn
	for i, fd := range fds {
		if ends[i], err = boundary.FromFile(os.NewFile(uintptr(fd), "socket")); err != nil {
			t.Fatal(err)
		}
	}
	served := make(chan error, 1)
	go func() { served <- serve(ends[1], lamps{}) }()
	t.Cleanup(func() {
		_ = ends[0].Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		_ = ends[1].Close()
	})
	if err := ends[0].Receive(&pb.ModuleFrame{}); err != nil {
		t.Fatal(err)
	}
	return ends[0]
}

func ask(t *testing.T, server *boundary.Conn, frame *pb.ServerFrame) *pb.Result {
	t.Helper()
	if err := server.Send(frame); err != nil {
		t.Fatal(err)
	}
	answer := &pb.ModuleFrame{}
	if err := server.Receive(answer); err != nil {
		t.Fatal(err)
	}
	return answer.GetResult()
}

func TestServe(t *testing.T) {
	server := connect(t)
	lamp := &pb.Device{Module: 9, Type: 4, Role: "lamp", Name: "Lamp"}
	call := func(function pb.Call_Function, data string, change func(*pb.Call)) *pb.Result {
		c := &pb.Call{Context: 1, Function: function, Device: lamp, Data: []byte(data)}
		if change != nil {
			change(c)
		}
		return ask(t, server, &pb.ServerFrame{Kind: &pb.ServerFrame_Call{Call: c}})
	}
	poll := func() []string {
		var got []string
		for _, c := range ask(t, server, &pb.ServerFrame{Kind: &pb.ServerFrame_Poll{Poll: &pb.Poll{Context: 1}}}).GetCommands() {
			if c.GetDevice().GetRole() != "lamp" || c.GetDevice().GetName() != "Lamp" || c.GetDevice().GetModule() != 9 || c.GetDevice().GetType() != 4 {
				t.Errorf("the command is for %v", c.GetDevice())
			}
			got = append(got, string(c.GetData()))
		}
		return got
	}
	start := func(number int32) *pb.Result {
		return ask(t, server, &pb.ServerFrame{Kind: &pb.ServerFrame_Start{Start: &pb.Start{ModuleNumber: number}}})
	}
	open := func(config ...*pb.Pair) *pb.Result {
		return ask(t, server, &pb.ServerFrame{Kind: &pb.ServerFrame_Open{Open: &pb.Open{
			Context: 1, Company: "c", Car: "n", Config: config, PollTimeoutMs: 1}}})
	}
	if r := start(8); r.GetError() != "this is module 9 but it is configured as module 8" {
		t.Errorf("wrong number: %v", r)
	}
	if r := start(9); r.GetModuleNumber() != 9 || !slices.Equal(r.GetSupportedTypes(), []uint32{4}) {
		t.Errorf("start: %v", r)
	}
	if r := open(&pb.Pair{Key: "bad", Value: "x"}); r.GetError() != "the key bad is not wanted" {
		t.Errorf("open: %v", r)
	}
	if r := open(&pb.Pair{Key: "b", Value: "1"}, &pb.Pair{Key: "a", Value: "2"}); r.GetCode() != 0 {
		t.Errorf("open: %v", r)
	}
	if got := poll(); len(got) != 0 {
		t.Errorf("commands without cause: %q", got)
	}
	call(pb.Call_DEVICE_CONNECTED, "", nil)
	call(pb.Call_FORWARD_STATUS, "hello", nil)
	call(pb.Call_FORWARD_STATUS, "again", func(c *pb.Call) { c.Redelivered = true })
	call(pb.Call_FORWARD_ERROR, "error", nil)
	call(pb.Call_COMMAND_ACK, "delivered", nil)
	if got := poll(); !slices.Equal(got, []string{"c/n [{b 1} {a 2}] hello false", "c/n [{b 1} {a 2}] again true", "error", "delivered"}) {
		t.Errorf("commands %q", got)
	}
	if r := call(pb.Call_DEVICE_DISCONNECTED, "", nil); r.GetCode() != -4 || r.GetError() != "" {
		t.Errorf("code: %v", r)
	}
	if r := call(pb.Call_DEVICE_DISCONNECTED, "", func(c *pb.Call) { c.DisconnectType = 1 }); r.GetCode() != -7 || !strings.Contains(r.GetError(), "wrapped") {
		t.Errorf("wrapped code: %v", r)
	}
	if r := call(77, "", nil); r.GetCode() != -1 || !strings.Contains(r.GetError(), "newer than this module") {
		t.Errorf("unknown function: %v", r)
	}
	if r := ask(t, server, &pb.ServerFrame{Kind: &pb.ServerFrame_Close{Close: &pb.Close{Context: 1}}}); r.GetCode() != 0 {
		t.Errorf("close: %v", r)
	}
}

func TestServeOutside(t *testing.T) {
	if Started() {
		t.Fatal("the test was started as a module")
	}
	if err := Serve(lamps{}); err == nil || !strings.Contains(err.Error(), "module check") {
		t.Errorf("Serve outside of the server: %v", err)
	}
}
