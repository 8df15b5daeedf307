package wire

import "encoding/binary"

// Limits of the protocol.
const (
	MaxString    = 1<<16 - 1 // bytes of a topic, client identifier, user name, password
	MaxRemaining = 268_435_455
)

// Will is the message the broker publishes when the connection is lost.
type Will struct {
	Topic   string
	Payload []byte
	Retain  bool
}

// ConnectOptions are the contents of a CONNECT. The session is always clean
// (CONN-7).
type ConnectOptions struct {
	ClientID  string
	Username  string // "": none, and no password either
	Password  string
	KeepAlive uint16 // seconds
	Will      *Will  // QoS 1
}

// AppendConnect appends a CONNECT. No string may be longer than MaxString.
func AppendConnect(b []byte, o ConnectOptions) []byte {
	var flags byte = 0x02
	n := 10 + 2 + len(o.ClientID)
	if o.Will != nil {
		flags |= 0x04 | 1<<3
		if o.Will.Retain {
			flags |= 0x20
		}
		n += 4 + len(o.Will.Topic) + len(o.Will.Payload)
	}
	if o.Username != "" {
		flags |= 0x80 | 0x40
		n += 4 + len(o.Username) + len(o.Password)
	}
	b = appendHeader(b, byte(Connect)<<4, n)
	b = appendString(b, "MQTT")
	b = append(b, 4, flags)
	b = binary.BigEndian.AppendUint16(b, o.KeepAlive)
	b = appendString(b, o.ClientID)
	if o.Will != nil {
		b = appendString(b, o.Will.Topic)
		b = appendString(b, string(o.Will.Payload))
	}
	if o.Username != "" {
		b = appendString(b, o.Username)
		b = appendString(b, o.Password)
	}
	return b
}

// PublishSize is the length in bytes of what AppendPublish appends.
func PublishSize(topic string, payload int, qos byte) int {
	n := 2 + len(topic) + payload
	if qos > 0 {
		n += 2
	}
	return 1 + lengthSize(n) + n
}

// AppendPublish appends a PUBLISH. id is not used with QoS 0.
func AppendPublish(b []byte, topic string, payload []byte, qos byte, id uint16, retain, duplicate bool) []byte {
	first := byte(Publish)<<4 | qos<<1
	if retain {
		first |= 0x01
	}
	if duplicate {
		first |= 0x08
	}
	n := 2 + len(topic) + len(payload)
	if qos > 0 {
		n += 2
	}
	b = appendHeader(b, first, n)
	b = appendString(b, topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return append(b, payload...)
}

// AppendPuback appends a PUBACK.
func AppendPuback(b []byte, id uint16) []byte {
	return append(b, byte(Puback)<<4, 2, byte(id>>8), byte(id))
}

// AppendSubscribe appends one SUBSCRIBE for all filters with the same QoS.
func AppendSubscribe(b []byte, id uint16, qos byte, filters ...string) []byte {
	n := 2
	for _, f := range filters {
		n += 3 + len(f)
	}
	b = appendHeader(b, byte(Subscribe)<<4|2, n)
	b = binary.BigEndian.AppendUint16(b, id)
	for _, f := range filters {
		b = append(appendString(b, f), qos)
	}
	return b
}

// AppendUnsubscribe appends one UNSUBSCRIBE for all filters.
func AppendUnsubscribe(b []byte, id uint16, filters ...string) []byte {
	n := 2
	for _, f := range filters {
		n += 2 + len(f)
	}
	b = appendHeader(b, byte(Unsubscribe)<<4|2, n)
	b = binary.BigEndian.AppendUint16(b, id)
	for _, f := range filters {
		b = appendString(b, f)
	}
	return b
}

// AppendPingreq appends a PINGREQ.
func AppendPingreq(b []byte) []byte { return append(b, byte(Pingreq)<<4, 0) }

// AppendDisconnect appends a DISCONNECT.
func AppendDisconnect(b []byte) []byte { return append(b, byte(Disconnect)<<4, 0) }

func appendHeader(b []byte, first byte, n int) []byte {
	b = append(b, first)
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func lengthSize(n int) int {
	size := 1
	for n >= 0x80 {
		n >>= 7
		size++
	}
	return size
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}
