package mqtt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// keeper is a receiver of a session that is kept: it remembers in order what it hears
// and acknowledges what it is told to.
type keeper struct {
	port   link.Port
	answer func(k *keeper, payload string, d link.Delivery) // nil: acknowledges
	set    chan struct{}                                    // closed when port is set

	mu     sync.Mutex
	events []string
}

func (k *keeper) note(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, fmt.Sprintf(format, args...))
}

func (k *keeper) heard() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.events)
}

func (k *keeper) Message(payload []byte, d link.Delivery) bool {
	<-k.set
	mark := ""
	if d.Duplicate {
		mark = " again"
	}
	k.note("%s%s", payload, mark)
	if k.answer != nil {
		k.answer(k, string(payload), d)
	} else {
		k.port.Acknowledge(d.Ack)
	}
	return true
}
func (k *keeper) Sent()                       {}
func (k *keeper) BacklogRead()                { k.note("read") }
func (k *keeper) LinkUp(up link.Up)           { k.note("%s", []string{"fresh", "continued"}[up]) }
func (k *keeper) LinkDown(_ error, kept bool) { k.note("down %v", kept) }

func attachKeeper(t testing.TB, l *mqtt.Link, car fleet.CarID, answer func(*keeper, string, link.Delivery)) *keeper {
	t.Helper()
	k := &keeper{answer: answer, set: make(chan struct{})}
	p, err := l.Attach(car, k)
	if err != nil {
		t.Fatal(err)
	}
	k.port = p
	close(k.set)
	return k
}

// runSuspendable returns functions that end the link: for the next process, or for good.
func runSuspendable(t testing.TB, l *mqtt.Link) (end func(cause error)) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var once sync.Once
	end = func(cause error) {
		once.Do(func() {
			cancel(cause)
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(testwait.Patience):
				t.Errorf("Run did not return within %v", testwait.Patience)
			}
		})
	}
	t.Cleanup(func() { end(nil) })
	return end
}

// plain starts a mosquitto with its default settings and some more lines.
func plain(t testing.TB, lines string) *brokertest.Mosquitto {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := "listener 1883\nallow_anonymous true\nlog_dest stderr\nlog_type all\n"
	if os.Geteuid() == 0 {
		text += "user root\n"
	}
	if err := os.WriteFile(file, []byte(text+lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return brokertest.Start(t, brokertest.Options{File: file})
}

// startKeeping starts the project's own broker as one that outlives the servers.
func startKeeping(t *testing.T) (address string) {
	return startEmbedded(t, broker.Options{KeepSessions: true}).Addr().String()
}

func sessions(shards int, self string) *mqtt.Sessions {
	return &mqtt.Sessions{ClientID: "es-test", Shards: shards, Self: self}
}
