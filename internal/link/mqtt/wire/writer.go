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

// ConnectOptions are the contents of a CONNECT.
type ConnectOptions struct {
	// Version; zero means 3.1.1.
	Version   Version
	ClientID  string
	Username  string // "": none, and no password either
	Password  string
	KeepAlive uint16 // seconds
	Will      *Will  // QoS 1

	// Continue asks for the session that the broker keeps; otherwise it begins a clean
	// one (CONN-7).
	Continue bool
	// SessionExpiry is for how many seconds the broker keeps the session after the
	// connection; ReceiveMaximum is how many messages it may send before the first
	// is acknowledged, WillDelay after how many seconds it publishes the will. Of
	// version 5; zero: not said.
	SessionExpiry  uint32
	ReceiveMaximum uint16
	WillDelay      uint32
}

// AppendConnect appends a CONNECT. No string may be longer than MaxString.
func AppendConnect(b []byte, o ConnectOptions) []byte {
	if o.Version == 0 {
		o.Version = V311
	}
	var flags byte
	if !o.Continue {
		flags = 0x02
	}
	properties, willProperties := o.properties()
	n := 10 + len(properties) + 2 + len(o.ClientID)
	if o.Will != nil {
		flags |= 0x04 | 1<<3
		if o.Will.Retain {
			flags |= 0x20
		}
		n += len(willProperties) + 4 + len(o.Will.Topic) + len(o.Will.Payload)
	}
	if o.Username != "" {
		flags |= 0x80 | 0x40
		n += 4 + len(o.Username) + len(o.Password)
	}
	b = appendHeader(b, byte(Connect)<<4, n)
	b = appendString(b, "MQTT")
	b = append(b, byte(o.Version), flags)
	b = binary.BigEndian.AppendUint16(b, o.KeepAlive)
	b = append(b, properties...)
	b = appendString(b, o.ClientID)
	if o.Will != nil {
		b = append(b, willProperties...)
		b = appendString(b, o.Will.Topic)
		b = appendString(b, string(o.Will.Payload))
	}
	if o.Username != "" {
		b = appendString(b, o.Username)
		b = appendString(b, o.Password)
	}
	return b
}

// properties returns the properties of CONNECT and of the will with their length.
func (o *ConnectOptions) properties() (connect, will []byte) {
	if o.Version != V5 {
		return nil, nil
	}
	connect, will = []byte{0}, []byte{0} // the lengths, below 128
	if o.SessionExpiry > 0 {
		connect = binary.BigEndian.AppendUint32(append(connect, byte(propSessionExpiry)), o.SessionExpiry)
	}
	if o.ReceiveMaximum > 0 {
		connect = binary.BigEndian.AppendUint16(append(connect, byte(propReceiveMaximum)), o.ReceiveMaximum)
	}
	if o.WillDelay > 0 {
		will = binary.BigEndian.AppendUint32(append(will, byte(propWillDelay)), o.WillDelay)
	}
	connect[0], will[0] = byte(len(connect)-1), byte(len(will)-1)
	return connect, will
}

// PublishSize is Version.PublishSize of version 3.1.1.
func PublishSize(topic string, payload int, qos byte) int {
	return V311.PublishSize(topic, payload, qos)
}

// AppendPublish is Version.AppendPublish of version 3.1.1.
func AppendPublish(b []byte, topic string, payload []byte, qos byte, id uint16, retain, duplicate bool) []byte {
	return V311.AppendPublish(b, topic, payload, qos, id, retain, duplicate)
}

// AppendPuback appends a PUBACK that says success; it is the same in both versions.
func AppendPuback(b []byte, id uint16) []byte {
	return append(b, byte(Puback)<<4, 2, byte(id>>8), byte(id))
}

// AppendSubscribe is Version.AppendSubscribe of version 3.1.1.
func AppendSubscribe(b []byte, id uint16, qos byte, filters ...string) []byte {
	return V311.AppendSubscribe(b, id, qos, filters...)
}

// AppendUnsubscribe is Version.AppendUnsubscribe of version 3.1.1.
func AppendUnsubscribe(b []byte, id uint16, filters ...string) []byte {
	return V311.AppendUnsubscribe(b, id, filters...)
}

// AppendPingreq appends a PINGREQ.
func AppendPingreq(b []byte) []byte { return append(b, byte(Pingreq)<<4, 0) }

// AppendDisconnect appends a DISCONNECT without reason; it is the same in both
// versions.
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
