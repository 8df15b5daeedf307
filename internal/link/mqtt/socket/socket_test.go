package socket

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"external-server/internal/link/mqtt/reason"
)

// pair returns both ends of a connection.
func pair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var local net.Addr
	if ours, err = Dial(t.Context(), l.Addr().String(), func(a net.Addr) { local = a }, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	if local.String() != theirs.RemoteAddr().String() {
		t.Errorf("told %v, connected from %v", local, theirs.RemoteAddr())
	}
	return ours, theirs
}

// A peer that does not read is not waited for, and what it could not take goes on exactly there.
func TestTryGoesOn(t *testing.T) {
	ours, theirs := pair(t)
	w := NewWriter(ours)
	if !w.CanTry() {
		t.Fatal("no way to write to TCP without waiting")
	}
	packets := make([]byte, 1<<20)
	for i := range packets {
		packets[i] = byte(i % 251)
	}
	var want []byte
	for !w.HasRest() {
		if n := w.Try(packets); n > len(packets) || w.HasRest() == (n == len(packets)) {
			t.Fatalf("%d bytes written of %d, rest %v", n, len(packets), w.HasRest())
		}
		want = append(want, packets...)
	}
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(theirs)
		got <- all
	}()
	rest := w.TakeRest()
	if n, err := w.Write(rest); n != len(rest) || err != nil || w.HasRest() {
		t.Errorf("%d of %d bytes of the rest written, %v", n, len(rest), err)
	}
	if err := w.WriteLast([]byte("bye"), time.Minute); err != nil {
		t.Error(err)
	}
	ours.Close()
	if all := <-got; !bytes.Equal(all, append(want, "bye"...)) {
		t.Errorf("%d bytes came, and others than the %d that were sent", len(all), len(want)+3)
	}
	if n := w.Try(packets); n != 0 || !w.HasRest() {
		t.Errorf("%d bytes written to a closed connection", n)
	}
	if _, err := w.Write(w.TakeRest()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("expected the error of the try, got %v", err)
	}
}

// The last packets have a bound: a peer that reads nothing is left.
func TestWriteLastIsBounded(t *testing.T) {
	ours, _ := pair(t)
	w := NewWriter(ours)
	for !w.HasRest() {
		w.Try(make([]byte, 1<<20))
	}
	// The system may take some more, but not as much.
	if err := w.WriteLast(append(w.TakeRest(), make([]byte, 64<<20)...), time.Millisecond); err == nil {
		t.Error("written to a peer that does not read")
	}
}

// The peer sees at once that an aborted connection is gone, whatever was still to be sent.
func TestAbort(t *testing.T) {
	ours, theirs := pair(t)
	w := NewWriter(ours)
	for !w.HasRest() {
		w.Try(make([]byte, 1<<20))
	}
	Abort(ours)
	if _, err := io.Copy(io.Discard, theirs); err == nil {
		t.Error("the connection has ended in order")
	}
	ours, theirs = pair(t)
	Abort(tls.Client(ours, &tls.Config{}))
	if n, err := theirs.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("%d bytes said goodbye, %v", n, err)
	}
}

// Settings of TLS are asked for each connection; their error is the reason why there is none.
func TestDialTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	names := make(chan string, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		_ = tls.Server(nc, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			names <- h.ServerName
			return nil, errors.New("not now")
		}}).Handshake()
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = Dial(ctx, net.JoinHostPort("localhost", port), nil, func() (*tls.Config, error) { return &tls.Config{}, nil })
	if !errors.As(err, new(reason.Handshake)) {
		t.Errorf("expected an error of the handshake, got %v", err)
	}
	if name := <-names; name != "localhost" {
		t.Errorf("asked for %q", name)
	}
	broken := errors.New("no certificate")
	if _, err := Dial(ctx, l.Addr().String(), nil, func() (*tls.Config, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("expected the error of the settings, got %v", err)
	}
}
