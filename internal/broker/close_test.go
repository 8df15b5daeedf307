package broker_test

import (
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"external-server/internal/broker"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// Close ends clients in all states; goleak finds what stays behind.
func TestClose(t *testing.T) {
	address := brokertest.FreeAddress(t) // that no outgoing connection gets meanwhile
	b, _ := start(t, broker.Options{Listen: address})
	p := dial(t, b, brokertest.PeerOptions{})
	subscribe(t, p, "a")
	silent, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	ended(t, p.Conn)
	ended(t, silent)
	again, _ := start(t, broker.Options{Listen: address}) // the port is free
	dial(t, again, brokertest.PeerOptions{})
	unused, err := broker.New(broker.Options{Listen: ":0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if unused.Addr() != nil || unused.Close() != nil {
		t.Error("a broker that was not started has an address or an end")
	}
}

// Clients that leave at the moment when the broker is closed do not hold it up.
func TestCloseWhileClientsLeave(t *testing.T) {
	for range 5 {
		b, _ := start(t, broker.Options{})
		var peers [100]*brokertest.Peer
		for i := range peers {
			peers[i] = dial(t, b, brokertest.PeerOptions{})
		}
		for _, p := range peers {
			p.Conn.Close()
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What the broker has acknowledged to a publisher reaches the subscribers although it
// is closed at once, with either quality of service, and one that does not read
// holds nothing up for long.
func TestCloseDelivers(t *testing.T) {
	testneed.Time(t)
	const subscribers, messages = 20, 200
	for _, qos := range []byte{0, 1} {
		b, _ := start(t, broker.Options{})
		var all [subscribers]*brokertest.Peer
		for i := range all {
			all[i] = dial(t, b, brokertest.PeerOptions{})
			if err := all[i].Subscribe(qos, "a"); err != nil {
				t.Fatal(err)
			}
		}
		deaf := dial(t, b, brokertest.PeerOptions{})
		subscribe(t, deaf, "a")
		var received [subscribers]int
		var reading sync.WaitGroup
		for i, p := range all {
			reading.Go(func() {
				for {
					if _, err := p.Receive(testwait.Patience); err != nil {
						return
					}
					received[i]++
				}
			})
		}
		publisher := dial(t, b, brokertest.PeerOptions{})
		for range messages {
			publish(t, publisher, "a", strings.Repeat("x", 1000))
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		reading.Wait()
		for i, n := range received {
			if n != messages {
				t.Errorf("QoS %d: subscriber %d got %d of %d messages", qos, i, n, messages)
			}
		}
	}
}
