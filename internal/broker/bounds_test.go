package broker_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"external-server/internal/broker"
	"external-server/internal/brokertest"
	"external-server/internal/link/mqtt/wire"
)

// deepest has as many levels as the broker takes, longest as many bytes.
var (
	deepest = strings.Repeat("a/", 31) + "a"
	longest = strings.Repeat("x", 1024)
)

// What a topic or filter costs the library grows with its levels, so whoever comes
// with one that no car can need is disconnected before the library sees it, whatever
// the packet; and nobody else notices.
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
			if err := sender.Ping(); err != nil { // everybody has been sent it
				t.Fatal(err)
			}
		}
		<-read
		for range 2 * kept {
			publish(t, sender, "news", payload)
			expect(t, quick, "news", payload)
		}
		if n := strings.Count(log.String(), "does not keep up"); n != 1 {
			t.Errorf("%d clients do not keep up, expected one", n)
		}
	}
}

// lengthOf encodes the length of a part of a packet.
func lengthOf(part string) string {
	n, b := len(part), []byte{}
	for ; n > 0x7f; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return string(append(b, byte(n)))
}
