package broker_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"external-server/internal/broker"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// deepest has as many levels as the broker takes, longest as many bytes.
var (
	deepest = strings.Repeat("a/", 31) + "a"
	longest = strings.Repeat("x", 1024)
)

// What a topic or filter costs the library grows with its levels, so a client
// that comes with one that no car can need is disconnected before the library sees it, whatever
// the packet; other clients do not notice.
func TestTopicsWithoutEnd(t *testing.T) {
	b, log := start(t, broker.Options{})
	witness := dial(t, b, brokertest.PeerOptions{})
	subscribe(t, witness, deepest, longest)
	for _, topic := range []string{deepest, longest} {
		publish(t, witness, topic, "as long as can be")
		expect(t, witness, topic, "as long as can be")
	}
	before := b.Stats()
	for _, topic := range []string{deepest + "/a", longest + "x", strings.Repeat("a/", 30_000) + "a"} {
		for what, packet := range map[string][]byte{
			"SUBSCRIBE":       wire.AppendSubscribe(nil, 1, 1, "short", topic),
			"UNSUBSCRIBE":     wire.AppendUnsubscribe(nil, 1, topic),
			"PUBLISH":         wire.AppendPublish(nil, topic, []byte("x"), 0, 0, false, false),
			"retained":        wire.AppendPublish(nil, topic, []byte("x"), 1, 1, true, false),
			"remove retained": wire.AppendPublish(nil, topic, nil, 1, 1, true, false),
		} {
			p := dial(t, b, brokertest.PeerOptions{})
			if _, err := p.Conn.Write(packet); err != nil {
				t.Fatal(err)
			}
			ended(t, p.Conn)
			if s := b.Stats(); s.Retained != before.Retained || s.Subscriptions != before.Subscriptions {
				t.Errorf("%s with %d bytes left something behind: %+v", what, len(topic), s)
			}
		}
		if p, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String(), Will: &wire.Will{Topic: topic, Payload: []byte("x")}}); err == nil {
			p.Conn.Close()
			t.Errorf("a client may leave a will to a topic of %d bytes", len(topic))
		}
	}
	if err := witness.Ping(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "topic or filter") {
		t.Error("the log does not say why clients were disconnected")
	}
}

// What a client is told at the start is kept as long as it is connected.
func TestConnectWithoutEnd(t *testing.T) {
	b, _ := start(t, broker.Options{})
	properties := strings.Repeat("&\x00\x01k\x00\x01v", 30_000)
	connect := "\x00\x04MQTT\x05\x02\x00\x3c" + lengthOf(properties) + properties + "\x00\x04huge"
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("\x10" + lengthOf(connect) + connect)); err != nil {
		t.Fatal(err)
	}
	ended(t, c)
	if s := b.Stats(); s.Clients != 0 {
		t.Errorf("%d clients", s.Clients)
	}
}

// A client that reads but does not acknowledge makes the broker keep every message.
// So it is disconnected as one that does not read; one that acknowledges is not.
func TestClientThatNeverAcknowledges(t *testing.T) {
	const limit = 64 << 10
	for _, payload := range []string{"", strings.Repeat("x", 4000)} {
		b, log := start(t, broker.Options{MaxPendingBytes: limit})
		deaf := dial(t, b, brokertest.PeerOptions{})
		subscribe(t, deaf, "news")
		read := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, deaf.Conn)
			read <- err
		}()
		quick := dial(t, b, brokertest.PeerOptions{})
		subscribe(t, quick, "news")
		sender := dial(t, b, brokertest.PeerOptions{})
		kept := 2 * limit / (1024 + len(payload)) // beside what a message costs by itself
		for n := 1; !strings.Contains(log.String(), "does not keep up"); n++ {
			if n > kept+1 {
				t.Fatalf("after %d messages of %d bytes it is still connected", n, len(payload))
			}
			publish(t, sender, "news", payload)
			expect(t, quick, "news", payload)
			if err := quick.Ping(); err != nil { // the broker has its acknowledgement
				t.Fatal(err)
			}
			if err := sender.Ping(); err != nil { // everybody has been sent it
				t.Fatal(err)
			}
		}
		<-read
		for range 2 * kept {
			publish(t, sender, "news", payload)
			expect(t, quick, "news", payload)
			if err := quick.Ping(); err != nil { // the broker has its acknowledgement
				t.Fatal(err)
			}
		}
		if n := strings.Count(log.String(), "does not keep up"); n != 1 {
			t.Errorf("%d clients do not keep up, expected one", n)
		}
	}
}

// A full table of retained messages takes no new one, but those that are in it can be
// replaced and removed.
func TestRetainedMessagesAreReplacedWhenTheTableIsFull(t *testing.T) {
	b, _ := start(t, broker.Options{})
	server := dial(t, b, brokertest.PeerOptions{})
	retain := func(p *brokertest.Peer, topic, payload string) {
		t.Helper()
		if err := p.Retain(topic, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	retain(server, "company/external_server_status", "online")
	stranger := dial(t, b, brokertest.PeerOptions{})
	for i := range 1000 {
		retain(stranger, fmt.Sprint("junk/", i), "x")
	}
	if n := b.Stats().Retained; n > 1000 {
		t.Errorf("%d retained messages", n)
	}
	retain(server, "company/external_server_status", "offline")
	retain(server, "company/other", "no room")
	look := func(topics ...string) *brokertest.Peer {
		p := dial(t, b, brokertest.PeerOptions{})
		subscribe(t, p, append(topics, "end")...)
		publish(t, p, "end", "of what was retained")
		return p
	}
	p := look("company/external_server_status", "company/other")
	expect(t, p, "company/external_server_status", "offline")
	expect(t, p, "end", "of what was retained")
	retain(server, "company/external_server_status", "")
	expect(t, look("company/external_server_status"), "end", "of what was retained")
}

// Properties are kept along with a message, so they count as its content does.
func TestRetainedPropertiesAreBounded(t *testing.T) {
	b, _ := start(t, broker.Options{})
	p := dial(t, b, brokertest.PeerOptions{})
	for _, topic := range []string{"a/x", "a/largest"} {
		if err := p.Retain(topic, make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	before := b.Stats().Retained
	for name, properties := range map[string]string{"few": "&\x00\x01k\x00\x01v", "many": strings.Repeat("&\x00\x01k\x00\x01v", 2000)} {
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		publish := "\x00\x03a/" + name[:1] + lengthOf(properties) + properties + "x"
		packets := "\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01" + name[:1] + "\x31" + lengthOf(publish) + publish + "\xe0\x00"
		if _, err := c.Write([]byte(packets)); err != nil {
			t.Fatal(err)
		}
		ended(t, c)
		c.Close()
	}
	if n := b.Stats().Retained - before; n != 1 {
		t.Errorf("%d more messages are retained, expected the one with few properties", n)
	}
	subscribe(t, p, "a/largest")
	expect(t, p, "a/largest", string(make([]byte, 64<<10)))
}

// lengthOf encodes the length of a part of a packet.
func lengthOf(part string) string {
	n, b := len(part), []byte{}
	for ; n > 0x7f; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return string(append(b, byte(n)))
}

// The will of a server that ends replaces its retained message, too.
func TestWillReplacesARetainedMessageWhenTheTableIsFull(t *testing.T) {
	b, _ := start(t, broker.Options{})
	server := dial(t, b, brokertest.PeerOptions{Will: &wire.Will{Topic: "company/status", Payload: []byte("offline"), Retain: true}})
	if err := server.Retain("company/status", []byte("online")); err != nil {
		t.Fatal(err)
	}
	stranger := dial(t, b, brokertest.PeerOptions{})
	for i := range 1000 {
		if err := stranger.Retain(fmt.Sprint("junk/", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	server.Conn.Close()
	testwait.Until(t, "the will is what is retained", func() bool {
		p := dial(t, b, brokertest.PeerOptions{})
		subscribe(t, p, "company/status")
		m, err := p.Receive(testwait.Patience)
		if err != nil {
			t.Fatal(err)
		}
		return string(m.Payload) == "offline"
	})
}
