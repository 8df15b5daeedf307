package broker_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"external-server/internal/broker"
)

// A broker that holds lets its own process in at once and others when it is opened.
func TestHold(t *testing.T) {
	b, _ := start(t, broker.Options{Hold: true})
	connect := func(own bool) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if own {
			b.Own(c.LocalAddr())
		}
		if _, err := c.Write([]byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01" + map[bool]string{true: "o", false: "g"}[own])); err != nil {
			t.Fatal(err)
		}
		return c
	}
	answered := func(c net.Conn, within time.Duration) bool {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 4)
		n, err := c.Read(answer)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || n > 0 && answer[0] != 0x20 {
			t.Fatalf("%x %v", answer[:n], err)
		}
		return n > 0
	}
	gateway := connect(false)
	if own := connect(true); !answered(own, time.Minute) {
		t.Error("the connection of the process itself waits")
	}
	if answered(gateway, 50*time.Millisecond) {
		t.Error("a client was let in before the broker is open")
	}
	b.Open()
	b.Open()
	if !answered(gateway, time.Minute) {
		t.Error("a client still waits although the broker is open")
	}
	if !answered(connect(false), time.Minute) {
		t.Error("a client waits although the broker is open")
	}
}
