package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
	"external-server/internal/support/tied"
)

const (
	responderVariable = "LINK_SESSION_RESPONDER"
	killedCars        = 3
)

// responderMain is a process that answers what cars send, over one session that is kept,
// until it is killed.
func responderMain(address string) error {
	l, err := mqtt.New(mqtt.Options{Address: address, Logger: slog.New(slog.DiscardHandler), Sessions: &mqtt.Sessions{ClientID: "es-killed", Shards: 1, Self: fmt.Sprint("process ", os.Getpid())}})
	if err != nil {
		return err
	}
	for i := range killedCars {
		k := &keeper{set: make(chan struct{}), answer: func(k *keeper, payload string, d link.Delivery) {
			k.port.Publish([]byte("re "+payload), d.Ack)
		}}
		if k.port, err = l.Attach(id("company", fmt.Sprintf("car_%d", i)), k); err != nil {
			return err
		}
		close(k.set)
	}
	return l.Run(context.Background())
}

// A process that answers and is killed (-9) at any moment, again and again, while the cars
// go on sending: each message is answered once, but for at most one for each kill, whose
// acknowledgement had left and whose answer had not (RES-3).
func TestKilledAgainAndAgain(t *testing.T) {
	t.Run("mosquitto", func(t *testing.T) {
		killAgainAndAgain(t, brokertest.Start(t, brokertest.Options{Extra: "log_type none\n"}).Address())
	})
	t.Run("own broker, kept sessions", func(t *testing.T) { killAgainAndAgain(t, startKeeping(t)) })
}

// responder is a process that answers, and that is killed.
type responder struct {
	process *os.Process
	wait    func() error
}

func killAgainAndAgain(t *testing.T, address string) {
	const kills = 20
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func() responder {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), responderVariable+"="+address)
		cmd.Stderr = os.Stderr
		wait, err := tied.Start(cmd, syscall.SIGKILL)
		if err != nil {
			t.Fatal(err)
		}
		return responder{cmd.Process, wait}
	}
	kill := func(r responder) {
		if err := r.process.Kill(); err != nil {
			t.Error(err)
		}
		var killed *exec.ExitError
		if err := r.wait(); !errors.As(err, &killed) {
			t.Errorf("the process ended by itself: %v", err)
		}
	}
	observer, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	defer observer.Conn.Close()
	if err := observer.Subscribe(1, "company/+/external_server"); err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int64
	answers := make(map[string]int) // of the observer until it ends
	observed := make(chan error, 1)
	go func() {
		for ends := 0; ends < killedCars; {
			a, err := observer.Receive(testwait.Patience)
			if err != nil {
				observed <- err
				return
			}
			answers[strings.TrimSuffix(a.Topic, "/external_server")+" "+string(a.Payload)]++
			seen.Add(1)
			if string(a.Payload) == "re end" {
				ends++
			}
		}
		observed <- nil
	}()
	child := start()
	testwait.Until(t, "the session exists", func() bool { // only from then on nothing is lost
		p, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
		if err != nil {
			return false
		}
		defer p.Conn.Close()
		for i := range killedCars {
			say(t, p, id("company", fmt.Sprintf("car_%d", i)), "first")
		}
		return seen.Load() >= killedCars
	})
	cars, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	defer cars.Conn.Close()
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { sent <- n }()
		tick := time.NewTicker(10 * time.Millisecond) // three cars: 300 messages per second
		defer tick.Stop()
		for ; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for i := range killedCars {
				if err := cars.Publish(fmt.Sprintf("company/car_%d/module_gateway", i), []byte(fmt.Sprint(n)), false); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	for range kills {
		until := seen.Load() + rand.Int64N(150)
		testwait.Until(t, "the answers go on", func() bool { return seen.Load() >= until })
		kill(child)
		child = start()
	}
	close(stop)
	n := <-sent
	for i := range killedCars {
		say(t, cars, id("company", fmt.Sprintf("car_%d", i)), "end")
	}
	if err := <-observed; err != nil {
		t.Fatal(err)
	}
	kill(child)
	var missing, twice []string
	for i := range killedCars {
		for k := range n {
			key := fmt.Sprintf("company/car_%d re %d", i, k)
			switch answers[key] {
			case 1:
			case 0:
				missing = append(missing, key)
			default:
				twice = append(twice, key)
			}
		}
	}
	t.Logf("%d messages, %d kills, %d without answer", n*killedCars, kills, len(missing))
	if len(missing) > kills || len(twice) > 0 {
		t.Errorf("%d kills: without answer %v, answered twice %v", kills, missing, twice)
	}
}
