package host

import (
	"encoding/binary"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"external-server/internal/module"
	"github.com/fleet-protocol/external-server/sdk/boundary"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// TestUnusableCommandsOfAProcess: a process of somebody else's may let them
// through; the server does not keep them.
func TestUnusableCommandsOfAProcess(t *testing.T) {
	var p pending
	p.add(&pb.Command{Device: &pb.Device{Role: "r"}, Data: []byte("good")})
	p.add(&pb.Command{Device: &pb.Device{Role: strings.Repeat("r", module.MaxDeviceText+1)}})
	p.add(&pb.Command{Device: &pb.Device{Name: strings.Repeat("n", module.MaxDeviceText+1)}})
	p.add(&pb.Command{Device: &pb.Device{Role: "r"}, Data: make([]byte, module.MaxCommandData+1)})
	p.dropped(&pb.Result{UnusableCommands: 2, UnusableReason: "more of these"})
	if len(p.commands) != 1 || p.unusable == nil || p.unusable.Commands != 5 {
		t.Errorf("%d commands, %v", len(p.commands), p.unusable)
	}
}

// FuzzModuleFrames: whatever a module process sends, every request is released
// at most once, and nothing waits or panics.
func FuzzModuleFrames(f *testing.F) {
	encode := func(frames ...*pb.ModuleFrame) []byte {
		var out []byte
		for _, m := range frames {
			body, _ := proto.Marshal(m)
			out = append(binary.LittleEndian.AppendUint32(out, uint32(len(body))), body...)
		}
		return out
	}
	hello := &pb.ModuleFrame{Kind: &pb.ModuleFrame_Hello{Hello: &pb.Hello{Protocol: 1}}}
	result := func(id uint64) *pb.ModuleFrame {
		return &pb.ModuleFrame{Id: id, Kind: &pb.ModuleFrame_Result{Result: &pb.Result{Code: -1, Commands: []*pb.Command{{}, {Data: []byte("x")}}}}}
	}
	f.Add(encode(hello, result(1), result(1), result(2), result(9), hello))
	f.Add(encode(hello, &pb.ModuleFrame{Id: 2, Kind: &pb.ModuleFrame_Fetching{}}, &pb.ModuleFrame{Id: 2, Kind: &pb.ModuleFrame_Command{}}, &pb.ModuleFrame{Id: 3}))
	f.Add(encode(result(1)))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		mine, theirs := net.Pipe()
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = theirs.Write(data)
			_ = theirs.Close()
		}()
		opts := Options{}.withDefaults()
		c := newChild(&process{conn: boundary.New(mine)}, &opts, opts.Logger)
		c.cause = errDied // there is no process that could be ended
		close(c.gone)
		var released [4]atomic.Int32
		for id := uint64(1); id < 4; id++ {
			c.pending[id] = &pending{op: "call", result: make(chan *pb.Result, 1), release: func() { released[id].Add(1) }}
		}
		greeted := make(chan error, 1)
		c.receive(greeted)
		<-greeted
		_ = c.conn.Close()
		<-written
		for id, p := range c.pending {
			if released[id].Load() != 0 || len(p.result) != 0 {
				t.Errorf("request %d was answered and still waits", id)
			}
		}
		for id := range released {
			if released[id].Load() > 1 {
				t.Errorf("request %d was released %d times", id, released[id].Load())
			}
		}
	})
}
