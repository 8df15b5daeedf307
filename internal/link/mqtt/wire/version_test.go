package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	codec "github.com/wind-c/comqtt/v2/mqtt/packets"

	"external-server/internal/link/mqtt/wire"
)

// decode5 reads one packet of version 5 with an independent implementation.
func decode5(t *testing.T, b []byte) codec.Packet {
	t.Helper()
	pk := codec.Packet{ProtocolVersion: 5}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	n, size := binary.Uvarint(b[1:])
	pk.FixedHeader.Remaining = int(n)
	body := b[1+size:]
	if len(body) != int(n) {
		t.Fatalf("%x: length %d instead of %d", b, n, len(body))
	}
	decoders := map[byte]func([]byte) error{
		codec.Connect: pk.ConnectDecode, codec.Publish: pk.PublishDecode, codec.Puback: pk.PubackDecode, codec.Subscribe: pk.SubscribeDecode,
		codec.Unsubscribe: pk.UnsubscribeDecode, codec.Pingreq: pk.PingreqDecode, codec.Disconnect: pk.DisconnectDecode,
	}
	if err := decoders[pk.FixedHeader.Type](body); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return pk
}

func TestWrittenPacketsOfVersion5AreReadByAnother(t *testing.T) {
	c := decode5(t, wire.AppendConnect(nil, wire.ConnectOptions{
		Version: wire.V5, ClientID: "id", Username: "user", Password: "secret", KeepAlive: 15, Continue: true,
		SessionExpiry: 120, ReceiveMaximum: 4096, WillDelay: 25, Will: &wire.Will{Topic: "will", Payload: []byte("gone"), Retain: true},
	}))
	p := c.Connect
	if c.ProtocolVersion != 5 || p.Clean || p.Keepalive != 15 || p.ClientIdentifier != "id" || string(p.Username) != "user" || string(p.Password) != "secret" ||
		p.WillTopic != "will" || string(p.WillPayload) != "gone" || p.WillQos != 1 || !p.WillRetain || p.WillProperties.WillDelayInterval != 25 ||
		c.Properties.SessionExpiryInterval != 120 || c.Properties.ReceiveMaximum != 4096 || c.ConnectValidate() != codec.CodeSuccess {
		t.Errorf("CONNECT: %+v", c)
	}
	c = decode5(t, wire.AppendConnect(nil, wire.ConnectOptions{Version: wire.V5, ClientID: "id"}))
	if !c.Connect.Clean || c.Properties.SessionExpiryIntervalFlag || c.Connect.WillFlag || c.ConnectValidate() != codec.CodeSuccess {
		t.Errorf("CONNECT: %+v", c)
	}
	for _, size := range []int{0, 1, 119, 120, 16_376, 16_377, 2_100_000} {
		payload := bytes.Repeat([]byte{'x'}, size)
		b := wire.V5.AppendPublish(nil, "a/b", payload, 1, 513, false, true)
		p := decode5(t, b)
		if p.TopicName != "a/b" || !bytes.Equal(p.Payload, payload) || p.FixedHeader.Qos != 1 || p.PacketID != 513 || p.FixedHeader.Retain || !p.FixedHeader.Dup {
			t.Errorf("PUBLISH of %d bytes: %+v", size, p.FixedHeader)
		}
		if n := wire.V5.PublishSize("a/b", size, 1); n != len(b) {
			t.Errorf("PublishSize is %d instead of %d", n, len(b))
		}
	}
	if p := decode5(t, wire.V5.AppendPublish(nil, "a", nil, 0, 0, true, false)); p.FixedHeader.Qos != 0 || !p.FixedHeader.Retain || len(p.Payload) != 0 {
		t.Errorf("PUBLISH: %+v", p)
	}
	if p := decode5(t, wire.AppendPuback(nil, 0x1234)); p.PacketID != 0x1234 || p.ReasonCode != 0 {
		t.Errorf("PUBACK: %+v", p)
	}
	s := decode5(t, wire.V5.AppendSubscribe(nil, 7, 1|wire.RetainNever, "a", "b/+/c"))
	if s.PacketID != 7 || len(s.Filters) != 2 || s.Filters[1].Filter != "b/+/c" || s.Filters[0].Qos != 1 || s.Filters[0].RetainHandling != 2 || s.SubscribeValidate() != codec.CodeSuccess {
		t.Errorf("SUBSCRIBE: %+v", s)
	}
	u := decode5(t, wire.V5.AppendUnsubscribe(nil, 8, "a", "b"))
	if u.PacketID != 8 || len(u.Filters) != 2 || u.Filters[1].Filter != "b" {
		t.Errorf("UNSUBSCRIBE: %+v", u)
	}
	decode5(t, wire.AppendPingreq(nil))
	decode5(t, wire.AppendDisconnect(nil))
	if d := decode5(t, wire.AppendForget(nil)); d.ReasonCode != 0 || !d.Properties.SessionExpiryIntervalFlag || d.Properties.SessionExpiryInterval != 0 {
		t.Errorf("DISCONNECT: %+v", d)
	}
}

// encode5 writes a packet of version 5 with an independent implementation.
func encode5(t testing.TB, kind byte, pk codec.Packet) []byte {
	t.Helper()
	pk.ProtocolVersion, pk.FixedHeader.Type = 5, kind
	pk.Mods.AllowResponseInfo = true
	encoders := map[byte]func(*bytes.Buffer) error{
		codec.Connack: pk.ConnackEncode, codec.Publish: pk.PublishEncode, codec.Puback: pk.PubackEncode, codec.Suback: pk.SubackEncode,
		codec.Unsuback: pk.UnsubackEncode, codec.Pingresp: pk.PingrespEncode, codec.Disconnect: pk.DisconnectEncode,
	}
	var b bytes.Buffer
	if err := encoders[kind](&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read5(b []byte, maxPayload int) ([]wire.Packet, error) {
	r := wire.NewReader(iotest.HalfReader(bytes.NewReader(b)), maxPayload)
	r.Speak(wire.V5)
	var out []wire.Packet
	for {
		var p wire.Packet
		if err := r.Next(&p); err != nil {
			return out, err
		}
		p.Topic, p.Codes = bytes.Clone(p.Topic), bytes.Clone(p.Codes)
		out = append(out, p)
	}
}

func user(size int) []codec.UserProperty {
	return []codec.UserProperty{{Key: "k", Val: strings.Repeat("v", size)}, {Key: "k", Val: "again"}}
}

func TestPacketsOfVersion5OfAnotherAreRead(t *testing.T) {
	const limit = 200_000
	big := bytes.Repeat([]byte("0123456789"), limit/10)
	message := func(id uint16, payload []byte, p codec.Properties) codec.Packet {
		return codec.Packet{FixedHeader: codec.FixedHeader{Qos: 1, Dup: true}, TopicName: "t/u", PacketID: id, Payload: payload, Properties: p}
	}
	all := codec.Properties{
		PayloadFormat: 1, PayloadFormatFlag: true, MessageExpiryInterval: 9, ContentType: "text", ResponseTopic: "r", CorrelationData: []byte{1},
		SubscriptionIdentifier: []int{1, 200_000}, User: user(10),
	}
	var b []byte
	for _, p := range []struct {
		kind byte
		pk   codec.Packet
	}{
		{codec.Connack, codec.Packet{SessionPresent: true, Properties: codec.Properties{
			ReceiveMaximum: 20, MaximumQos: 1, MaximumQosFlag: true, RetainAvailable: 0, RetainAvailableFlag: true, MaximumPacketSize: 5000,
			AssignedClientID: "auto", TopicAliasMaximum: 10, ReasonString: "welcome", WildcardSubAvailable: 0, WildcardSubAvailableFlag: true,
			ServerKeepAlive: 7, ServerKeepAliveFlag: true, SessionExpiryInterval: 60, SessionExpiryIntervalFlag: true, User: user(3), ResponseInfo: "x",
		}}},
		{codec.Connack, codec.Packet{ReasonCode: 0x87}},
		{codec.Publish, message(3, []byte("small"), all)},
		{codec.Publish, message(4, big, all)},
		{codec.Publish, message(5, append(big, 'x'), codec.Properties{})},
		{codec.Publish, message(6, []byte("much beside"), codec.Properties{User: append(user(60_000), user(60_000)...)})},
		{codec.Publish, message(7, nil, codec.Properties{User: user(30_000)})},
		{codec.Puback, codec.Packet{PacketID: 258}},
		{codec.Puback, codec.Packet{PacketID: 259, ReasonCode: 0x97, Properties: codec.Properties{ReasonString: "too much"}}},
		{codec.Suback, codec.Packet{PacketID: 9, ReasonCodes: []byte{0, 1, 0x87}, Properties: codec.Properties{ReasonString: "not all"}}},
		{codec.Unsuback, codec.Packet{PacketID: 10, ReasonCodes: []byte{0, 0x11}}},
		{codec.Pingresp, codec.Packet{}},
		{codec.Disconnect, codec.Packet{ReasonCode: 0x8e, Properties: codec.Properties{ReasonString: strings.Repeat("x", 1000)}}},
	} {
		b = append(b, encode5(t, p.kind, p.pk)...)
	}
	b = append(b, 0xe0, 0) // DISCONNECT in its shortest form
	got, err := read5(b, limit)
	if err != io.EOF || len(got) != 14 {
		t.Fatalf("%d packets, error %v", len(got), err)
	}
	want := wire.Server{ReceiveMaximum: 20, MaximumQoS: 1, MaximumPacketSize: 5000, KeepAlive: 7, HasKeepAlive: true, SessionExpiry: 60, HasSessionExpiry: true, AssignedClientID: "auto"}
	if p := got[0]; p.Type != wire.Connack || !p.Present || p.Code != 0 || *p.Server != want || p.Reason != "welcome" {
		t.Errorf("CONNACK: %+v %+v", p, p.Server)
	}
	want = wire.Server{ReceiveMaximum: 65535, MaximumQoS: 2, RetainAvailable: true, WildcardAvailable: true}
	if p := got[1]; p.Code != 0x87 || p.Present || *p.Server != want {
		t.Errorf("CONNACK: %+v %+v", p, p.Server)
	}
	for i, want := range []struct {
		id        uint16
		payload   string
		oversized bool
	}{{3, "small", false}, {4, string(big), false}, {5, "", true}, {6, "", true}, {7, "", false}} {
		if p := got[2+i]; p.Type != wire.Publish || string(p.Topic) != "t/u" || p.ID != want.id || p.QoS != 1 || !p.Duplicate || string(p.Payload) != want.payload || p.Oversized != want.oversized {
			t.Errorf("PUBLISH %d: topic %s, id %d, %d bytes, oversized %v", i, p.Topic, p.ID, len(p.Payload), p.Oversized)
		}
	}
	if p := got[7]; p.Type != wire.Puback || p.ID != 258 || p.Code != 0 {
		t.Errorf("PUBACK: %+v", p)
	}
	if p := got[8]; p.ID != 259 || p.Code != 0x97 || p.Reason != "too much" {
		t.Errorf("PUBACK: %+v", p)
	}
	if p := got[9]; p.Type != wire.Suback || p.ID != 9 || !bytes.Equal(p.Codes, []byte{0, 1, 0x87}) || p.Reason != "not all" {
		t.Errorf("SUBACK: %+v", p)
	}
	if p := got[10]; p.Type != wire.Unsuback || p.ID != 10 || !bytes.Equal(p.Codes, []byte{0, 0x11}) {
		t.Errorf("UNSUBACK: %+v", p)
	}
	if p := got[12]; p.Type != wire.Disconnect || p.Code != 0x8e || len(p.Reason) != 256 {
		t.Errorf("DISCONNECT: %+v", p)
	}
	if p := got[13]; p.Type != wire.Disconnect || p.Code != 0 {
		t.Errorf("DISCONNECT: %+v", p)
	}
	// A broker that knows only older versions answers in their form.
	if got, err := read5([]byte{0x20, 2, 0, 1}, limit); err != io.EOF || len(got) != 1 || got[0].Code != 1 {
		t.Errorf("CONNACK of an old broker: %+v, error %v", got, err)
	}
}

func TestMalformedPacketsOfVersion5(t *testing.T) {
	for name, b := range map[string][]byte{
		"packet of a client":            {0x80, 2, 0, 1},
		"AUTH":                          {0xf0, 0},
		"PUBACK without identifier":     {0x40, 2, 0, 0},
		"PUBACK and more":               {0x40, 5, 0, 1, 0, 0, 0},
		"PUBACK properties cut":         {0x40, 4, 0, 1, 0, 9},
		"property of another packet":    {0x40, 7, 0, 1, 0, 3, 0x21, 0, 1},
		"unknown property":              {0x40, 6, 0, 1, 0, 2, 0x7f, 0},
		"property twice":                {0x40, 10, 0, 1, 0, 6, 0x1f, 0, 0, 0x1f, 0, 0},
		"text longer than properties":   {0x40, 7, 0, 1, 0, 3, 0x1f, 0, 9},
		"user property without value":   {0x40, 8, 0, 1, 0, 4, 0x26, 0, 1, 'k'},
		"PINGRESP with body":            {0xd0, 1, 0},
		"CONNACK with flags":            {0x20, 3, 2, 0, 0},
		"CONNACK of an old broker":      {0x20, 2, 0, 0},
		"CONNACK and more":              {0x20, 4, 0, 0, 0, 0},
		"receive maximum 0":             {0x20, 6, 0, 0, 3, 0x21, 0, 0},
		"maximum packet size 0":         {0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0},
		"maximum QoS 2":                 {0x20, 5, 0, 0, 2, 0x24, 2},
		"SUBACK without result":         {0x90, 3, 0, 1, 0},
		"SUBACK with properties only":   {0x90, 6, 0, 1, 3, 0x1f, 0, 0},
		"SUBACK without end":            {0x90, 0xff, 0xff, 0xff, 0x7f},
		"UNSUBACK of 3.1.1":             {0xb0, 2, 0, 1},
		"QoS 2":                         {0x34, 6, 0, 1, 't', 0, 1, 0},
		"PUBLISH of 3.1.1":              {0x32, 5, 0, 1, 't', 0, 1},
		"PUBLISH without topic":         {0x30, 3, 0, 0, 0},
		"PUBLISH with topic alias":      {0x30, 7, 0, 1, 't', 3, 0x23, 0, 1},
		"PUBLISH properties too long":   {0x30, 4, 0, 1, 't', 9},
		"PUBLISH length not shortest":   {0x30, 5, 0, 1, 't', 0x80, 0},
		"PUBLISH identifier zero":       {0x32, 6, 0, 1, 't', 0, 0, 0},
		"DISCONNECT with flags":         {0xe1, 0},
		"DISCONNECT property of others": {0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0},
	} {
		got, err := read5(append(b, make([]byte, 10)...), 100)
		if len(got) != 0 || !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %d packets, error %v", name, len(got), err)
		}
	}
}

// FuzzReader5: whatever a broker of version 5 sends, the reader does not panic and what
// it accepts has the form it promises, and what another implementation accepts of a
// PUBLISH is the same.
func FuzzReader5(f *testing.F) {
	f.Add(encode5(f, codec.Connack, codec.Packet{Properties: codec.Properties{ReceiveMaximum: 20, ReasonString: "x", AssignedClientID: "y"}}))
	f.Add(encode5(f, codec.Publish, codec.Packet{TopicName: "a/b", Payload: []byte("p"), Properties: codec.Properties{User: user(5), SubscriptionIdentifier: []int{300}}}))
	f.Add(encode5(f, codec.Suback, codec.Packet{PacketID: 1, ReasonCodes: []byte{1}, Properties: codec.Properties{ReasonString: "x"}}))
	f.Add(append(wire.AppendPuback(nil, 1), 0xe0, 0, 0xd0, 0))
	f.Add(wire.V5.AppendPublish(nil, "a/b", make([]byte, 600), 1, 1, false, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 500
		r := wire.NewReader(bytes.NewReader(b), limit)
		r.Speak(wire.V5)
		size := 0
		for {
			var p wire.Packet
			ready := r.Ready()
			if err := r.Next(&p); err != nil {
				if ready && !errors.Is(err, wire.ErrMalformed) {
					t.Fatalf("ready, then %v", err)
				}
				return
			}
			start := size
			if size += p.Size; size > len(b) {
				t.Fatalf("%d bytes read of %d", size, len(b))
			}
			switch p.Type {
			case wire.Publish:
				if len(p.Topic) == 0 || p.QoS > 1 || (p.QoS == 1) != (p.ID != 0) || len(p.Payload) > limit || p.Oversized != (p.Payload == nil) {
					t.Fatalf("%+v", p)
				}
				other := codec.Packet{ProtocolVersion: 5, FixedHeader: codec.FixedHeader{Qos: p.QoS}}
				_, n := binary.Uvarint(b[start+1:])
				if err := other.PublishDecode(b[start+1+n : size]); err == nil && !p.Oversized && (other.TopicName != string(p.Topic) || !bytes.Equal(other.Payload, p.Payload)) {
					t.Fatalf("topic %q, payload %q; another reads %q, %q", p.Topic, p.Payload, other.TopicName, other.Payload)
				}
			case wire.Puback:
				if p.ID == 0 {
					t.Fatalf("%+v", p)
				}
			case wire.Unsuback, wire.Suback:
				if p.ID == 0 || len(p.Codes) == 0 {
					t.Fatalf("%+v", p)
				}
			case wire.Connack:
				if p.Server == nil || p.Server.ReceiveMaximum == 0 {
					t.Fatalf("%+v", p)
				}
			case wire.Pingresp, wire.Disconnect:
			default:
				t.Fatalf("accepted %v", p.Type)
			}
			if len(p.Reason) > 256*3 {
				t.Fatalf("a reason of %d bytes", len(p.Reason))
			}
		}
	})
}
