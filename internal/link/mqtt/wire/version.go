package wire

import "encoding/binary"

// Version is the protocol level of CONNECT. It decides the form of the other packets.
type Version byte

// The versions of MQTT that a client may speak.
const (
	V311 Version = 4 // 3.1.1
	V5   Version = 5
)

// String returns what people call the version.
func (v Version) String() string {
	if v == V5 {
		return "5"
	}
	return "3.1.1"
}

// AppendPublish appends a PUBLISH without properties. id is not used with QoS 0.
func (v Version) AppendPublish(b []byte, topic string, payload []byte, qos byte, id uint16, retain, duplicate bool) []byte {
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
	if v == V5 {
		n++
	}
	b = appendHeader(b, first, n)
	b = appendString(b, topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	if v == V5 {
		b = append(b, 0)
	}
	return append(b, payload...)
}

// PublishSize is the length in bytes of what AppendPublish appends.
func (v Version) PublishSize(topic string, payload int, qos byte) int {
	n := 2 + len(topic) + payload
	if qos > 0 {
		n += 2
	}
	if v == V5 {
		n++
	}
	return 1 + lengthSize(n) + n
}

// RetainIfNew and RetainNever are options of a subscription beside the QoS, of version 5
// only: retained messages are sent if the subscription did not exist, or not at all.
const (
	RetainIfNew byte = 1 << 4
	RetainNever byte = 2 << 4
)

// AppendSubscribe appends one SUBSCRIBE for all filters with the same options: the
// QoS, with version 5 also RetainIfNew or RetainNever.
func (v Version) AppendSubscribe(b []byte, id uint16, options byte, filters ...string) []byte {
	return v.appendFilters(b, Subscribe, id, filters, func(b []byte) []byte { return append(b, options) })
}

// AppendUnsubscribe appends one UNSUBSCRIBE for all filters.
func (v Version) AppendUnsubscribe(b []byte, id uint16, filters ...string) []byte {
	return v.appendFilters(b, Unsubscribe, id, filters, nil)
}

func (v Version) appendFilters(b []byte, t Type, id uint16, filters []string, each func([]byte) []byte) []byte {
	n := 2
	if v == V5 {
		n++
	}
	for _, f := range filters {
		n += 2 + len(f)
		if each != nil {
			n++
		}
	}
	b = appendHeader(b, byte(t)<<4|2, n)
	b = binary.BigEndian.AppendUint16(b, id)
	if v == V5 {
		b = append(b, 0)
	}
	for _, f := range filters {
		b = appendString(b, f)
		if each != nil {
			b = each(b)
		}
	}
	return b
}

// AppendForget appends the DISCONNECT of version 5 that ends the session too, although
// CONNECT has asked the broker to keep it.
func AppendForget(b []byte) []byte {
	return append(b, byte(Disconnect)<<4, 7, 0, 5, byte(propSessionExpiry), 0, 0, 0, 0)
}

// AppendDisconnectWithWill appends the DISCONNECT of version 5 after which the broker
// publishes the will, when its delay has passed and the client has not come back.
func AppendDisconnectWithWill(b []byte) []byte {
	return append(b, byte(Disconnect)<<4, 1, 4)
}
