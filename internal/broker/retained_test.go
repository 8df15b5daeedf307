package broker_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"external-server/internal/broker"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// Clients that leave and remove retained messages while others subscribe with
// wildcards: the race detector watches the library's table.
func TestRetainedMessagesWhileOthersSubscribe(t *testing.T) {
	b, _ := start(t, broker.Options{})
	var all sync.WaitGroup
	for i := range 4 {
		p, q := dial(t, b, brokertest.PeerOptions{}), dial(t, b, brokertest.PeerOptions{})
		all.Go(func() {
			for n := range 200 {
				if err := p.Retain(fmt.Sprintf("a/%d/%d", i, n%5), []byte("xx")[:n%3]); err != nil {
					t.Error(err)
					return
				}
			}
		})
		all.Go(func() {
			for n := range 200 {
				if err := q.Subscribe(0, "a/+/+", fmt.Sprintf("a/%d/#", n%4)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// A subscriber gets what is retained for each of its filters, marked as such; one of
// MQTT 5 that asks for it gets also the mark of a message that is retained just now.
func TestRetainedMessagesReachSubscribers(t *testing.T) {
	b, _ := start(t, broker.Options{})
	server := dial(t, b, brokertest.PeerOptions{})
	for _, topic := range []string{"a/x", "a/y", "b/x"} {
		if err := server.Retain(topic, []byte("kept "+topic)); err != nil {
			t.Fatal(err)
		}
	}
	for filter, want := range map[string]int{"#": 3, "a/#": 2, "a/+": 2, "+/x": 2, "a/x": 1, "c": 0, "+": 0} {
		p := dial(t, b, brokertest.PeerOptions{})
		subscribe(t, p, filter, "end")
		if err := p.Ping(); err != nil { // what is retained follows the answer to a subscription
			t.Fatal(err)
		}
		publish(t, server, "end", "")
		for n := 0; ; n++ {
			m, err := p.Receive(testwait.Patience)
			if err != nil {
				t.Fatal(err)
			}
			if m.Topic == "end" {
				if n != want {
					t.Errorf("%s: %d retained messages, expected %d", filter, n, want)
				}
				break
			}
			if !m.Retain || string(m.Payload) != "kept "+m.Topic {
				t.Errorf("%s: got %+v", filter, m)
			}
		}
	}
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hello := "\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01z"
	if _, err := c.Write([]byte(hello + "\x82\x09\x00\x01\x00\x00\x03new\x08")); err != nil { // retain as published
		t.Fatal(err)
	}
	head := make([]byte, 2)
	for range 2 { // CONNACK, SUBACK
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c, int64(head[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Retain("new", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, head); err != nil || head[0] != 0x31 {
		t.Errorf("got % x, error %v; expected a PUBLISH with the mark", head, err)
	}
}
