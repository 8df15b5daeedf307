package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// answering is a broker that reads a CONNECT, answers with the bytes and ends.
func answering(t *testing.T, answer []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 1024))
		_, _ = c.Write(answer)
		_, _ = io.Copy(io.Discard, c) // until the client has had enough
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func TestDial(t *testing.T) {
	publication := AppendPublish(nil, "a/b", []byte("early"), 1, 7, false, false)
	for _, lend := range []bool{false, true} {
		o := DialOptions{Address: answering(t, append([]byte{0x20, 2, 0, 0}, publication...)), MaxPayload: 100, Lend: lend}
		c, err := Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var p Packet
		if err := c.Next(&p); err != nil || string(p.Payload) != "early" || p.ID != 7 {
			t.Errorf("what came with the CONNACK: %+v, %v", p, err)
		}
		c.Close()
	}
}

func TestDialFails(t *testing.T) {
	_, err := Dial(t.Context(), DialOptions{Address: answering(t, []byte{0x20, 2, 0, 5})})
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Code != 5 || !strings.Contains(err.Error(), "password") {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := Dial(t.Context(), DialOptions{Address: answering(t, []byte{0xd0, 0})}); err == nil || !strings.Contains(err.Error(), "PINGRESP instead of CONNACK") {
		t.Errorf("another packet: %v", err)
	}
	// A broker that says nothing: ctx ends it, and its error tells so.
	ctx, cancel := context.WithCancel(t.Context())
	address := answering(t, nil)
	failed := make(chan error, 1)
	go func() {
		_, err := Dial(ctx, DialOptions{Address: address})
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("a silent broker: %v", err)
	}
}
