package boundary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// pair returns two connected ends.
func pair(t testing.TB) (*Conn, *Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*Conn
	for i, fd := range fds {
		if ends[i], err = FromFile(os.NewFile(uintptr(fd), "socket")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ends[i].Close() })
	}
	return ends[0], ends[1]
}

// TestManySenders: every frame arrives whole and once, those of one sender in
// order, however writes are put together.
func TestManySenders(t *testing.T) {
	a, b := pair(t)
	const senders, frames = 50, 200
	var group sync.WaitGroup
	for s := range senders {
		group.Go(func() {
			for n := range frames {
				call := &pb.Call{Context: uint32(s), Data: bytes.Repeat([]byte{byte(n)}, n*s%3000)}
				send := a.Send
				if n%10 == 0 {
					send = a.SendNow
				}
				if err := send(&pb.ServerFrame{Id: uint64(n + 1), Kind: &pb.ServerFrame_Call{Call: call}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := make(map[uint32]uint64)
	for range senders * frames {
		frame := &pb.ServerFrame{}
		if err := b.Receive(frame); err != nil {
			t.Fatal(err)
		}
		s := frame.GetCall().GetContext()
		if next[s]++; frame.GetId() != next[s] {
			t.Fatalf("sender %d: frame %d, expected %d", s, frame.GetId(), next[s])
		}
		n := int(frame.GetId()) - 1
		if want := bytes.Repeat([]byte{byte(n)}, n*int(s)%3000); !bytes.Equal(frame.GetCall().GetData(), want) {
			t.Fatalf("sender %d, frame %d: wrong data", s, n)
		}
	}
	group.Wait()
}

func TestEnds(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(&pb.ServerFrame{Id: 1}); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := b.Receive(&pb.ServerFrame{}); err != nil {
		t.Error(err)
	}
	if err := b.Receive(&pb.ServerFrame{}); err != io.EOF {
		t.Errorf("got %v, expected EOF", err)
	}
	if err := b.Send(&pb.ModuleFrame{Id: 7}); err != nil {
		t.Error(err)
	}
	if err := a.Receive(&pb.ModuleFrame{}); err != nil {
		t.Errorf("the other direction: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	a, b := pair(t)
	big := &pb.ServerFrame{Id: 1, Kind: &pb.ServerFrame_Call{Call: &pb.Call{Data: make([]byte, MaxFrame+1)}}}
	if err := a.Send(big); !errors.Is(err, ErrFrame) {
		t.Errorf("got %v", err)
	}
	if err := a.Send(&pb.ServerFrame{Id: 2}); err != nil {
		t.Errorf("after a refused frame: %v", err)
	}
	frame := &pb.ServerFrame{}
	if err := b.Receive(frame); err != nil || frame.GetId() != 2 {
		t.Errorf("got %v, %v", frame, err)
	}
}

// FuzzReceive: whatever a module process sends is a frame or an error, and a
// length alone allocates nothing.
func FuzzReceive(f *testing.F) {
	valid := func(m proto.Message) []byte {
		body, _ := proto.Marshal(m)
		return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	f.Add(valid(&pb.ModuleFrame{Kind: &pb.ModuleFrame_Hello{Hello: &pb.Hello{Protocol: 1, Name: "x"}}}))
	f.Add(append(valid(&pb.ModuleFrame{Id: 3, Kind: &pb.ModuleFrame_Result{Result: &pb.Result{Code: -11}}}), 1, 0, 0))
	f.Add([]byte{255, 255, 255, 255})
	f.Add([]byte{0, 0, 0, 4, 1, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		mine, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = theirs.Write(data)
			_ = theirs.Close()
		}()
		c := New(mine)
		total := 0
		for {
			frame := &pb.ModuleFrame{}
			err := c.Receive(frame)
			if err != nil {
				if fmt.Sprint(err) == "" {
					t.Error("an error without text")
				}
				break
			}
			total += prefix + proto.Size(frame)
		}
		_ = c.Close()
		<-done
		if cap(c.frame) > 2*len(data)+128<<10 {
			t.Errorf("%d bytes allocated for %d bytes of input", cap(c.frame), len(data))
		}
	})
}
