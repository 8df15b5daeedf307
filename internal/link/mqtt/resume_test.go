package mqtt

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/testwait"
)

// deaf is a receiver that takes nothing to heart.
type deaf struct {
	mu     sync.Mutex
	events []string
}

func (d *deaf) note(s string) { d.mu.Lock(); defer d.mu.Unlock(); d.events = append(d.events, s) }

// hears waits until it has heard the event, and then forgets that and what came before: the one behind it may have come.
func (d *deaf) hears(t *testing.T, event string) {
	t.Helper()
	testwait.Until(t, event, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		at := slices.Index(d.events, event)
		d.events = d.events[at+1:]
		return at >= 0
	})
}
func (d *deaf) Message([]byte, link.Delivery) bool { return true }
func (d *deaf) Sent()                              {}
func (d *deaf) BacklogRead()                       { d.note("read") }
func (d *deaf) LinkUp(up link.Up)                  { d.note([]string{"fresh", "continued"}[up]) }
func (d *deaf) LinkDown(error, bool)               { d.note("down") }

// script is a broker that does what a test says: each connection is handed to the next of
// its steps.
type script struct {
	net.Listener
	hellos chan []byte // the CONNECT packets
}

func startScript(t *testing.T, steps ...func(c net.Conn)) *script {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{l, make(chan []byte, len(steps))}
	var serving sync.WaitGroup
	serving.Go(func() {
		for _, step := range steps {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			n, err := c.Read(b)
			if err == nil {
				s.hellos <- bytes.Clone(b[:n])
				step(c)
			}
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return s
}

// keepingBroker accepts, answers SUBSCRIBE and returns messages on the private topic, until
// the connection or until ends.
func keepingBroker(present byte, until <-chan struct{}) func(c net.Conn) {
	return func(c net.Conn) {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-until:
				c.Close()
			case <-stop:
			}
		}()
		if _, err := c.Write([]byte{0x20, 3, present, 0, 0}); err != nil {
			return
		}
		answer(c)
	}
}

func answer(c net.Conn) {
	b := make([]byte, 0, 1<<16)
	for {
		part := make([]byte, 4096)
		n, err := c.Read(part)
		if err != nil {
			return
		}
		b = append(b, part[:n]...)
		for len(b) >= 2 && len(b) >= 2+int(b[1]) && b[1] < 0x80 {
			first, body := b[0], b[2:2+int(b[1])]
			b = b[2+len(body):]
			var out []byte
			switch wire.Type(first >> 4) {
			case wire.Subscribe:
				out = []byte{0x90, 4, body[0], body[1], 0, 1}
			case wire.Publish:
				topic := int(body[0])<<8 | int(body[1])
				out = append(out, 0x40, 2, body[2+topic], body[3+topic])
				out = wire.V5.AppendPublish(out, string(body[2:2+topic]), body[5+topic:], 0, 0, false, false)
			case wire.Pingreq:
				out = []byte{0xd0, 0}
			}
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}
}

// cleanStart tells what a CONNECT asks for, and its version.
func cleanStart(hello []byte) (version byte, clean bool) { return hello[8], hello[9]&2 != 0 }

func runScript(t *testing.T, s *script, change func(*Options), clock func() time.Duration) *deaf {
	t.Helper()
	o := Options{Address: s.Addr().String(), Logger: slog.New(slog.DiscardHandler), RetryMax: 10 * time.Millisecond, StopTimeout: time.Second,
		Sessions: &Sessions{ClientID: "es", Shards: 1}}
	if change != nil {
		change(&o)
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if clock != nil {
		l.clock = clock
	}
	r := &deaf{}
	if _, err := l.Attach(fleet.CarID{Company: "company", Car: "car"}, r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// After 25 s without connection what the broker holds is of no use any more (RES-5).
func TestLongLossBeginsAnew(t *testing.T) {
	var now atomic.Int64
	cut := []chan struct{}{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	s := startScript(t, keepingBroker(0, cut[0]), func(c net.Conn) { now.Add(int64(24 * time.Second)) },
		keepingBroker(1, cut[1]), func(c net.Conn) { now.Add(int64(26 * time.Second)) }, keepingBroker(0, cut[2]))
	defer close(cut[2])
	r := runScript(t, s, nil, func() time.Duration { return time.Duration(now.Load()) })
	wait := func(event string, clean bool) {
		t.Helper()
		if v, c := cleanStart(<-s.hellos); v != 5 || c != clean {
			t.Errorf("version %d, clean start %v", v, c)
		}
		r.hears(t, event)
	}
	wait("fresh", false)
	close(cut[0])
	wait("down", false)
	wait("read", false)
	close(cut[1])
	wait("down", false)
	wait("fresh", true)
}

// A new session is asked for when the process says so, once.
func TestCleanStart(t *testing.T) {
	cut := make(chan struct{})
	end := make(chan struct{})
	s := startScript(t, keepingBroker(0, cut), keepingBroker(1, end))
	defer close(end)
	r := runScript(t, s, func(o *Options) { o.Sessions.CleanStart = true }, nil)
	if _, clean := cleanStart(<-s.hellos); !clean {
		t.Error("the first connection continues")
	}
	r.hears(t, "fresh")
	close(cut)
	if _, clean := cleanStart(<-s.hellos); clean {
		t.Error("the second connection begins anew too")
	}
}

// A broker that does not speak version 5 is asked in version 3.1.1: for a clean session,
// unless the client identifier was chosen by the operator (RES-1).
func TestOldBroker(t *testing.T) {
	old := func(c net.Conn) { // accepts 3.1.1
		_, _ = c.Write([]byte{0x20, 2, 0, 0}) // its end is noticed by the reader
		answer311(c)
	}
	refuse := func(b ...byte) func(c net.Conn) {
		return func(c net.Conn) { _, _ = c.Write(b) }
	}
	silent := func(net.Conn) {}
	for _, tc := range []struct {
		name     string
		explicit bool
		steps    []func(net.Conn)
		versions []byte
		clean    bool
	}{
		{"code 1", false, []func(net.Conn){refuse(0x20, 2, 0, 1), old}, []byte{5, 4}, true},
		{"reason 0x84", false, []func(net.Conn){refuse(0x20, 3, 0, 0x84, 0), old}, []byte{5, 4}, true},
		{"closes", false, []func(net.Conn){silent, silent, old}, []byte{5, 5, 4}, true},
		{"explicit", true, []func(net.Conn){refuse(0x20, 2, 0, 1), old, silent}, []byte{5, 4}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startScript(t, tc.steps...)
			r := runScript(t, s, func(o *Options) { o.Sessions.Explicit = tc.explicit }, nil)
			for i, want := range tc.versions {
				v, clean := cleanStart(<-s.hellos)
				if v != want || i == len(tc.versions)-1 && clean != tc.clean {
					t.Errorf("connection %d: version %d, clean %v", i, v, clean)
				}
			}
			r.hears(t, "fresh")
		})
	}
}

func answer311(c net.Conn) {
	r := make([]byte, 4096)
	for {
		n, err := c.Read(r)
		if err != nil || n == 0 {
			return
		}
		for b := r[:n]; len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
			if wire.Type(b[0]>>4) == wire.Subscribe {
				if _, err := c.Write([]byte{0x90, 3, b[2], b[3], 1}); err != nil {
					return
				}
			}
			if wire.Type(b[0]>>4) == wire.Disconnect {
				return
			}
		}
	}
}
