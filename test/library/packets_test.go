package library

import (
	"bytes"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"external-server/internal/link/mqtt/wire"
)

// An independent implementation reads what we write.
func TestWrittenPacketsAreReadByAnother(t *testing.T) {
	parse := func(b []byte) packets.ControlPacket {
		t.Helper()
		r := bytes.NewReader(b)
		p, err := packets.ReadPacket(r)
		if err != nil || r.Len() != 0 {
			t.Fatalf("%x: error %v, %d bytes left", b, err, r.Len())
		}
		return p
	}
	c := parse(wire.AppendConnect(nil, wire.ConnectOptions{
		ClientID: "id", Username: "user", Password: "secret", KeepAlive: 15,
		Will: &wire.Will{Topic: "will", Payload: []byte("gone"), Retain: true},
	})).(*packets.ConnectPacket)
	if c.ProtocolName != "MQTT" || c.ProtocolVersion != 4 || !c.CleanSession || c.Keepalive != 15 || c.ClientIdentifier != "id" ||
		c.Username != "user" || string(c.Password) != "secret" || c.WillTopic != "will" || string(c.WillMessage) != "gone" ||
		c.WillQos != 1 || !c.WillRetain || c.Validate() != packets.Accepted {
		t.Errorf("CONNECT: %v", c)
	}
	c = parse(wire.AppendConnect(nil, wire.ConnectOptions{ClientID: "id", Password: "not sent"})).(*packets.ConnectPacket)
	if c.UsernameFlag || c.PasswordFlag || c.WillFlag || c.Validate() != packets.Accepted {
		t.Errorf("CONNECT: %v", c)
	}
	for _, size := range []int{0, 1, 120, 200, 16_300, 16_500, 2_100_000} {
		payload := bytes.Repeat([]byte{'x'}, size)
		b := wire.AppendPublish(nil, "a/b", payload, 1, 513, false, true)
		p := parse(b).(*packets.PublishPacket)
		if p.TopicName != "a/b" || !bytes.Equal(p.Payload, payload) || p.Qos != 1 || p.MessageID != 513 || p.Retain || !p.Dup {
			t.Errorf("PUBLISH of %d bytes: %+v", size, p.FixedHeader)
		}
	}
	if p := parse(wire.AppendPublish(nil, "a", nil, 0, 0, true, false)).(*packets.PublishPacket); p.Qos != 0 || !p.Retain || p.Dup {
		t.Errorf("PUBLISH: %v", p)
	}
	if p := parse(wire.AppendPuback(nil, 0x1234)).(*packets.PubackPacket); p.MessageID != 0x1234 {
		t.Errorf("PUBACK: %v", p)
	}
	s := parse(wire.AppendSubscribe(nil, 7, 1, "a", "b/+/c")).(*packets.SubscribePacket)
	if s.MessageID != 7 || strings.Join(s.Topics, " ") != "a b/+/c" || !bytes.Equal(s.Qoss, []byte{1, 1}) {
		t.Errorf("SUBSCRIBE: %v", s)
	}
	u := parse(wire.AppendUnsubscribe(nil, 8, "a", "b")).(*packets.UnsubscribePacket)
	if u.MessageID != 8 || strings.Join(u.Topics, " ") != "a b" {
		t.Errorf("UNSUBSCRIBE: %v", u)
	}
	parse(wire.AppendPingreq(nil))
	parse(wire.AppendDisconnect(nil))
}
