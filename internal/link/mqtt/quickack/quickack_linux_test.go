package quickack

import (
	"net"
	"syscall"
	"testing"
)

// After each Read the system is to acknowledge at once.
func TestQuickAck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	c, ok := Wrap(accepted).(*conn)
	if !ok {
		t.Fatalf("%T", Wrap(accepted))
	}
	quick := func() (value int) {
		if err := c.raw.Control(func(fd uintptr) {
			value, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK)
		}); err != nil {
			t.Fatal(err)
		}
		return value
	}
	for range 3 {
		if _, err := client.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		if quick() == 0 {
			t.Error("the system puts acknowledgements off")
		}
		// An answer makes the system fall back.
		if _, err := c.Write([]byte("pong")); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
}
