package fence_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/cluster/fence"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

const cluster = "test"

// replica is one server of a shard, as far as the link goes.
type replica struct {
	t        *testing.T
	broker   fence.Broker
	epoch    fence.Epoch
	standing *fence.Standing
	carrier  *fence.Carrier
	link     *mqtt.Link
	port     link.Port
	set      chan struct{} // closed when port is set
	cancel   context.CancelCauseFunc
	ended    chan struct{}
	err      error // of Run, after ended
	log      *lines

	mu       sync.Mutex
	messages []string
	ups      int
}

// car belongs to the first shard, which publishes the presence of its server too.
var car = func() fleet.CarID {
	for n := 0; ; n++ {
		if c := (fleet.CarID{Company: "company", Car: fmt.Sprint("car", n)}); mqtt.Shard(c, shards) == 0 {
			return c
		}
	}
}()

// shard is that of car, of shards.
const shards = 4

func shard() int { return mqtt.Shard(car, shards) }

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func brokerAt(address, member string) fence.Broker {
	return fence.Broker{Address: address, Member: member}
}

// serve runs the link of a replica that has the epoch.
func serve(t *testing.T, b fence.Broker, epoch int64, change func(*mqtt.Options)) *replica {
	t.Helper()
	r := &replica{t: t, broker: b, epoch: fence.Epoch{Epoch: epoch, Replica: b.Member, Address: b.Member + ":1", Shards: shards},
		standing: fence.NewStanding(fence.Epoch{Epoch: epoch, Replica: b.Member, Address: b.Member + ":1", Shards: shards}, epoch),
		carrier:  fence.NewCarrier(cluster, shard()), set: make(chan struct{}), ended: make(chan struct{}), log: &lines{}}
	o := mqtt.Options{
		Address: b.Address, Username: b.Username, Password: b.Password, TLS: b.TLS,
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), RetryMax: 100 * time.Millisecond,
		Sessions: &mqtt.Sessions{ClientID: fence.ClientID(cluster), Shards: shards, Only: []int{shard()}, Self: b.Member,
			Announce: func(n int) (string, []byte) {
				r.carrier.Again()
				return fence.EpochTopic(cluster, n), r.standing.Epoch().Encode()
			},
			MayConnect: fence.MayConnect(b, cluster, func(int) *fence.Standing { return r.standing }),
			Records:    r.carrier.Records,
		},
	}
	if change != nil {
		change(&o)
	}
	l, err := mqtt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.link = l
	if r.port, err = l.Attach(car, r); err != nil {
		t.Fatal(err)
	}
	close(r.set)
	ctx, cancel := context.WithCancelCause(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.ended)
		r.err = l.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel(link.ErrSuspend)
		<-r.ended
		if t.Failed() {
			t.Logf("log of %s:\n%s", b.Member, r.log)
		}
	})
	return r
}

// Message implements link.Receiver: the answer names the replica.
func (r *replica) Message(payload []byte, d link.Delivery) bool {
	<-r.set
	r.mu.Lock()
	r.messages = append(r.messages, string(payload))
	r.mu.Unlock()
	r.port.Publish(fmt.Appendf(nil, "%s %s", r.epoch.Replica, payload), d.Ack)
	return true
}
func (r *replica) Sent()                {}
func (r *replica) LinkUp(link.Up)       { r.mu.Lock(); r.ups++; r.mu.Unlock() }
func (r *replica) BacklogRead()         {}
func (r *replica) LinkDown(error, bool) {}

func (r *replica) up() int { r.mu.Lock(); defer r.mu.Unlock(); return r.ups }

func (r *replica) heard(message string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.messages, message)
}

func (r *replica) waitUp(times int) {
	r.t.Helper()
	testwait.Until(r.t, r.epoch.Replica+" serves the car", func() bool { return r.up() >= times })
}

// waitFenced waits for the end of the link and looks at its reason.
func (r *replica) waitFenced() {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(testwait.Patience):
		r.t.Fatalf("%s goes on", r.epoch.Replica)
	}
	if !errors.Is(r.err, link.ErrFenced) {
		r.t.Fatalf("%s ended with %v", r.epoch.Replica, r.err)
	}
}

// watcher is a client that sees everything that is published to some topics, in order.
type watcher struct {
	*brokertest.Peer
	mu   sync.Mutex
	seen []brokertest.Message
	done chan struct{}
}

func watch(t *testing.T, address string, filters ...string) *watcher {
	t.Helper()
	p, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Subscribe(0, filters...); err != nil {
		t.Fatal(err)
	}
	w := &watcher{Peer: p, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			m, err := p.Receive(time.Hour)
			if err != nil {
				return
			}
			w.mu.Lock()
			w.seen = append(w.seen, m)
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() { p.Conn.Close(); <-w.done })
	return w
}

func (w *watcher) messages() []brokertest.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

func (w *watcher) saw(text string) bool {
	return slices.ContainsFunc(w.messages(), func(m brokertest.Message) bool { return string(m.Payload) == text })
}

// send publishes a message of the car.
func send(t *testing.T, p *brokertest.Peer, text string) {
	t.Helper()
	if err := p.Publish(car.String()+fleet.TopicFromGateway, []byte(text), false); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, address string) *brokertest.Peer {
	t.Helper()
	p, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Conn.Close() })
	return p
}

func seize(t *testing.T, b fence.Broker, epoch int64) {
	t.Helper()
	if _, err := fence.Seize(t.Context(), b, cluster, shard(), fence.Epoch{Epoch: epoch, Replica: b.Member}); err != nil {
		t.Fatal(err)
	}
}

// stop ends the link; another process may go on.
func (r *replica) stop() {
	r.cancel(link.ErrSuspend)
	<-r.ended
}

func waitRecord(t *testing.T, b fence.Broker, want string) {
	t.Helper()
	testwait.Until(t, "the broker has the record "+want, func() bool {
		found, err := fence.Records(t.Context(), b, cluster, shard())
		return err == nil && string(found[car]) == want
	})
}

// plainBroker runs mosquitto with its default limits.
func plainBroker(t *testing.T) *brokertest.Mosquitto {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(file, []byte("listener 1883\nallow_anonymous true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return brokertest.Start(t, brokertest.Options{File: file})
}

// stranger takes the shard's connection away without a word and leaves.
func stranger(t *testing.T, address string) {
	t.Helper()
	c, err := wire.Dial(t.Context(), wire.DialOptions{Address: address, Connect: wire.ConnectOptions{
		Version: wire.V5, ClientID: fmt.Sprintf("%s-%d", fence.ClientID(cluster), shard()), Continue: true, SessionExpiry: 120, KeepAlive: 60}})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
