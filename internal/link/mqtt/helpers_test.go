package mqtt_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/broker"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// brokers runs a test against the embedded broker and against mosquitto.
func brokers(t *testing.T, test func(t *testing.T, address string)) {
	t.Run("embedded", func(t *testing.T) {
		b := startEmbedded(t, broker.Options{})
		test(t, b.Addr().String())
	})
	t.Run("mosquitto", func(t *testing.T) {
		test(t, brokertest.Start(t, brokertest.Options{}).Address())
	})
}

func startEmbedded(t testing.TB, o broker.Options) *broker.Broker {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	o.Logger = testLogger(t)
	b, err := broker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// testLog collects what was logged and shows it when the test fails.
type testLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// count returns the number of lines that contain all words.
func (l *testLog) count(words ...string) int {
	n := 0
line:
	for line := range strings.Lines(l.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue line
			}
		}
		n++
	}
	return n
}

func newTestLog(t testing.TB) (*testLog, *slog.Logger) {
	l := &testLog{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", l.String())
		}
	})
	return l, slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func testLogger(t testing.TB) *slog.Logger {
	_, log := newTestLog(t)
	return log
}

// startLink runs a link until the test ends; zero options are filled in.
func startLink(t testing.TB, o mqtt.Options) *mqtt.Link {
	l := newLink(t, o)
	runLink(t, l)
	return l
}

func newLink(t testing.TB, o mqtt.Options) *mqtt.Link {
	t.Helper()
	if o.Logger == nil {
		o.Logger = testLogger(t)
	}
	if o.RetryMax == 0 {
		o.RetryMax = 100 * time.Millisecond
	}
	l, err := mqtt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// runLink returns a function that stops the link and waits for its end.
func runLink(t testing.TB, l *mqtt.Link) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(testwait.Patience):
			t.Errorf("Run did not return within %v", testwait.Patience)
		}
	})
	t.Cleanup(stop)
	return stop
}

// recorder is a receiver that remembers.
type recorder struct {
	mu       sync.Mutex
	messages []string
	waiting  int // messages since Sent
	dups     int
	ups      int
	downs    []error
	onUp     func()
	ended    bool // hears nothing any more
}

func (r *recorder) Message(payload []byte, d link.Delivery) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	r.messages = append(r.messages, string(payload))
	r.waiting++
	if d.Duplicate {
		r.dups++
	}
	return true
}

func (r *recorder) Sent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = 0
}

func (r *recorder) BacklogRead() {}

func (r *recorder) LinkUp(link.Up) {
	r.mu.Lock()
	r.ups++
	f := r.onUp
	r.mu.Unlock()
	if f != nil {
		f()
	}
}

func (r *recorder) LinkDown(reason error, _ bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.downs = append(r.downs, reason)
}

func (r *recorder) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.messages...)
}

func (r *recorder) upCount() int { r.mu.Lock(); defer r.mu.Unlock(); return r.ups }

func (r *recorder) lost() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]error(nil), r.downs...)
}

func id(company, car string) fleet.CarID { return fleet.CarID{Company: company, Car: car} }

func attach(t testing.TB, l *mqtt.Link, car fleet.CarID) (*recorder, link.Port) {
	t.Helper()
	r := &recorder{}
	p, err := l.Attach(car, r)
	if err != nil {
		t.Fatal(err)
	}
	return r, p
}

func waitUp(t testing.TB, recorders ...*recorder) {
	t.Helper()
	testwait.Until(t, "the link is up for the car", func() bool {
		for _, r := range recorders {
			if r.upCount() == 0 {
				return false
			}
		}
		return true
	})
}

// gateway is the car's side: it listens to everything sent to the car.
func gateway(t testing.TB, address string, car fleet.CarID) *brokertest.Peer {
	t.Helper()
	p, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Conn.Close() })
	if err := p.Subscribe(1, car.String()+"/external_server", car.String()+"/external_server_disconnect"); err != nil {
		t.Fatal(err)
	}
	return p
}

func say(t testing.TB, p *brokertest.Peer, car fleet.CarID, payload string) {
	t.Helper()
	if err := p.Publish(car.String()+"/module_gateway", []byte(payload), false); err != nil {
		t.Fatal(err)
	}
}

// ping waits until the broker has passed on what the peer has published.
func ping(t testing.TB, p *brokertest.Peer) {
	t.Helper()
	if err := p.Ping(); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, p *brokertest.Peer) brokertest.Message {
	t.Helper()
	m, err := p.Receive(testwait.Patience)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func numbers(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(i)
	}
	return out
}
