package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// property is the identifier of a property (MQTT 5 section 2.2.2.2).
type property byte

const (
	propPayloadFormat         property = 0x01
	propMessageExpiry         property = 0x02
	propContentType           property = 0x03
	propResponseTopic         property = 0x08
	propCorrelationData       property = 0x09
	propSubscriptionID        property = 0x0b
	propSessionExpiry         property = 0x11
	propAssignedClientID      property = 0x12
	propServerKeepAlive       property = 0x13
	propAuthMethod            property = 0x15
	propAuthData              property = 0x16
	propWillDelay             property = 0x18
	propResponseInformation   property = 0x1a
	propServerReference       property = 0x1c
	propReasonString          property = 0x1f
	propReceiveMaximum        property = 0x21
	propTopicAliasMaximum     property = 0x22
	propTopicAlias            property = 0x23
	propMaximumQoS            property = 0x24
	propRetainAvailable       property = 0x25
	propUser                  property = 0x26
	propMaximumPacketSize     property = 0x27
	propWildcardAvailable     property = 0x28
	propSubscriptionIDs       property = 0x29
	propSharedSubscriptionsOK property = 0x2a
)

// Forms of values.
const (
	oneByte = iota + 1
	twoBytes
	fourBytes
	variable
	counted // string or binary data, after two bytes of length
	pair    // two strings
)

// kind is the form of a property's value and in which packets a broker may send it.
type kind struct {
	form int
	in   uint16 // bits: 1 << Type
}

const (
	inConnack = 1 << Connack
	inPublish = 1 << Publish
	inAll     = inConnack | 1<<Puback | 1<<Suback | 1<<Unsuback | 1<<Disconnect
)

func kindOf(id property) kind {
	switch id {
	case propPayloadFormat:
		return kind{oneByte, inPublish}
	case propMessageExpiry:
		return kind{fourBytes, inPublish}
	case propContentType, propResponseTopic, propCorrelationData:
		return kind{counted, inPublish}
	case propSubscriptionID:
		return kind{variable, inPublish}
	case propTopicAlias:
		return kind{twoBytes, inPublish}
	case propSessionExpiry, propMaximumPacketSize:
		return kind{fourBytes, inConnack}
	case propAssignedClientID, propAuthMethod, propAuthData, propResponseInformation:
		return kind{counted, inConnack}
	case propServerReference:
		return kind{counted, inConnack | 1<<Disconnect}
	case propServerKeepAlive, propReceiveMaximum, propTopicAliasMaximum:
		return kind{twoBytes, inConnack}
	case propMaximumQoS, propRetainAvailable, propWildcardAvailable, propSubscriptionIDs, propSharedSubscriptionsOK:
		return kind{oneByte, inConnack}
	case propReasonString:
		return kind{counted, inAll}
	case propUser:
		return kind{pair, inAll | inPublish}
	}
	return kind{}
}

// properties reads length and properties at the start of b, calls each for every one
// and returns what follows. The values are parts of b.
func (p *Packet) properties(b []byte, each func(id property, value []byte) error) (rest []byte, err error) {
	length, size, err := varint(b)
	if err != nil {
		return nil, err
	}
	if length > len(b)-size {
		return nil, fmt.Errorf("%w: %v with properties of %d bytes in %d", ErrMalformed, p.Type, length, len(b)-size)
	}
	b, rest = b[size:size+length], b[size+length:]
	var seen uint64
	for len(b) > 0 {
		id := property(b[0])
		k := kindOf(id)
		if k.in&(1<<p.Type) == 0 {
			return nil, fmt.Errorf("%w: %v with property %#x", ErrMalformed, p.Type, byte(id))
		}
		if id != propUser && id != propSubscriptionID {
			if seen&(1<<id) != 0 {
				return nil, fmt.Errorf("%w: %v with property %#x twice", ErrMalformed, p.Type, byte(id))
			}
			seen |= 1 << id
		}
		value, used, err := k.value(b[1:])
		if err != nil {
			return nil, fmt.Errorf("%w: %v with property %#x cut off", ErrMalformed, p.Type, byte(id))
		}
		if err := each(id, value); err != nil {
			return nil, err
		}
		b = b[1+used:]
	}
	return rest, nil
}

// value returns a value without its length, and how many bytes it takes.
func (k kind) value(b []byte) (value []byte, used int, err error) {
	n := 0
	switch k.form {
	case oneByte:
		n = 1
	case twoBytes:
		n = 2
	case fourBytes:
		n = 4
	case variable:
		if _, n, err = varint(b); err != nil {
			return nil, 0, err
		}
	case counted:
		return countedValue(b)
	case pair:
		_, first, err := countedValue(b)
		if err != nil {
			return nil, 0, err
		}
		_, second, err := countedValue(b[first:])
		return nil, first + second, err
	}
	if len(b) < n {
		return nil, 0, ErrMalformed
	}
	return b[:n], n, nil
}

func countedValue(b []byte) (value []byte, used int, err error) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, 0, ErrMalformed
	}
	used = 2 + int(binary.BigEndian.Uint16(b))
	return b[2:used], used, nil
}

// varint reads a variable byte integer (section 1.5.5).
func varint(b []byte) (value, size int, err error) {
	for i := range min(4, len(b)) {
		value |= int(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			if b[i] == 0 && i > 0 {
				return 0, 0, fmt.Errorf("%w: a length is not in its shortest form", ErrMalformed)
			}
			return value, i + 1, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: a length is cut off or has more than four bytes", ErrMalformed)
}

// maxText bounds what is kept of a broker's text, in bytes.
const maxText = 256

// text makes a broker's text fit for a log.
func text(b []byte) string {
	return strings.ToValidUTF8(string(b[:min(len(b), maxText)]), "?")
}
