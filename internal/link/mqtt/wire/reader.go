// Package wire reads and writes the packets of MQTT 3.1.1 and 5 that a client needs:
// bytes in, bytes out, and a Conn for clients simpler than the link. It imports nothing of
// the project.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Type is the type of a control packet (MQTT 3.1.1 section 2.2.1).
type Type byte

// The control packets.
const (
	Connect     Type = 1
	Connack     Type = 2
	Publish     Type = 3
	Puback      Type = 4
	Subscribe   Type = 8
	Suback      Type = 9
	Unsubscribe Type = 10
	Unsuback    Type = 11
	Pingreq     Type = 12
	Pingresp    Type = 13
	Disconnect  Type = 14
)

var names = [16]string{
	1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP",
	8: "SUBSCRIBE", 9: "SUBACK", 10: "UNSUBSCRIBE", 11: "UNSUBACK", 12: "PINGREQ", 13: "PINGRESP", 14: "DISCONNECT",
}

// String returns the name the specification uses.
func (t Type) String() string {
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("packet type %d", byte(t))
}

// SubackRefused is the return code of a filter the broker did not accept.
const SubackRefused = 0x80

// ErrMalformed is wrapped by every error that the peer's bytes cause. The
// connection cannot be used any more.
var ErrMalformed = errors.New("malformed MQTT packet")

// Packet is one packet that a broker may send. Fields that the type does not
// have are zero.
type Packet struct {
	Type      Type
	QoS       byte    // Publish
	Duplicate bool    // Publish: the DUP flag
	Retain    bool    // Publish
	ID        uint16  // Publish with QoS > 0, Puback, Suback, Unsuback
	Topic     []byte  // Publish: valid until the next call of Next
	Payload   []byte  // Publish: owned by the caller, but see Reader.Lend; nil when Oversized
	Codes     []byte  // Suback, in version 5 also Unsuback: one per filter; valid until the next call of Next
	Code      byte    // Connack: the return code; in version 5 also Puback and Disconnect: the reason
	Reason    string  // the broker's own words, of version 5, with Code or Codes; shortened
	Present   bool    // Connack: the broker has kept the session
	Server    *Server // Connack of version 5
	Oversized bool    // Publish: longer than the limit; its payload was read and thrown away
	Size      int     // length of the whole packet in bytes
}

// Server is what a broker of version 5 says about itself in CONNACK.
type Server struct {
	ReceiveMaximum    uint16 // of messages that wait for its acknowledgement
	MaximumQoS        byte
	RetainAvailable   bool
	WildcardAvailable bool
	MaximumPacketSize uint32 // bytes; 0: no limit
	KeepAlive         uint16 // seconds; valid with HasKeepAlive, instead of the client's
	HasKeepAlive      bool
	SessionExpiry     uint32 // seconds; valid with HasSessionExpiry, instead of the client's
	HasSessionExpiry  bool
	AssignedClientID  string // "": the client's own
}

// Reader reads packets from a broker. Every packet that its version of MQTT does not
// allow a broker to send to a client that uses QoS 0 and 1 is an error.
type Reader struct {
	br         *bufio.Reader
	maxPayload func() int
	lend       bool // payloads stay in the buffer
	version    Version
}

// minBuffer keeps the largest topic and its packet identifier in the buffer.
const minBuffer = 1<<16 + 16

// NewReader returns a Reader on r. maxPayload bounds the payload of a PUBLISH in
// bytes: what is longer is read and thrown away (Packet.Oversized).
func NewReader(r io.Reader, maxPayload int) *Reader {
	return newReader(r, minBuffer, maxPayload)
}

func newReader(r io.Reader, buffer, maxPayload int) *Reader {
	return &Reader{br: bufio.NewReaderSize(r, max(buffer, minBuffer)), maxPayload: func() int { return maxPayload }, version: V311}
}

// LimitBy replaces the bound of NewReader by one that may change, which is asked for
// every PUBLISH. It is to be called before Next.
func (r *Reader) LimitBy(maxPayload func() int) { r.maxPayload = maxPayload }

// Lend makes the payload of a PUBLISH valid until the next call of Next only, which saves
// a copy and its allocation. It is to be called before Next.
func (r *Reader) Lend() { r.lend = true }

// payload returns what belongs to the caller, of bytes in the buffer.
func (r *Reader) payload(buffered []byte) []byte {
	if r.lend {
		return buffered
	}
	return append(make([]byte, 0, len(buffered)), buffered...)
}

// Speak chooses the version; without it the reader expects 3.1.1. It is to be called
// before Next.
func (r *Reader) Speak(v Version) { r.version = v }

// Ready reports whether the next packet has been received completely, so that
// Next does not wait. A caller may postpone until then what is better done once
// for several packets.
func (r *Reader) Ready() bool {
	n := r.br.Buffered()
	if n < 2 {
		return false
	}
	head, _ := r.br.Peek(min(n, 5)) // buffered already
	remaining := 0
	for i, b := range head[1:] {
		remaining |= int(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			return n >= 2+i+remaining
		}
	}
	return len(head) == 5 // malformed, Next will say so
}

// Next reads one packet into p. io.EOF means that the peer closed between two
// packets.
func (r *Reader) Next(p *Packet) error {
	first, err := r.br.ReadByte()
	if err != nil {
		return err
	}
	remaining, header, err := r.length()
	if err != nil {
		return unexpected(err)
	}
	*p = Packet{Type: Type(first >> 4), Size: header + remaining}
	flags := first & 0x0f
	if p.Type == Publish {
		return unexpected(r.publish(p, flags, remaining))
	}
	if r.version == V5 {
		return unexpected(r.control5(p, flags, remaining))
	}
	return unexpected(r.control(p, flags, remaining))
}

// length reads the remaining length (section 2.2.3).
func (r *Reader) length() (remaining, header int, err error) {
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.br.ReadByte()
		if err != nil {
			return 0, 0, err
		}
		remaining |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			if b == 0 && shift > 0 {
				return 0, 0, fmt.Errorf("%w: remaining length is not in its shortest form", ErrMalformed)
			}
			return remaining, 2 + shift/7, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: remaining length has more than four bytes", ErrMalformed)
}

func (r *Reader) control(p *Packet, flags byte, remaining int) error {
	if flags != 0 {
		return fmt.Errorf("%w: %v with flags %#x", ErrMalformed, p.Type, flags)
	}
	want := 2
	switch p.Type {
	case Connack, Puback, Unsuback:
	case Pingresp:
		want = 0
	case Suback:
		if remaining < 3 || remaining > minBuffer {
			return fmt.Errorf("%w: SUBACK of %d bytes", ErrMalformed, remaining)
		}
		want = remaining
	default:
		return fmt.Errorf("%w: a broker must not send %v to this client", ErrMalformed, p.Type)
	}
	if remaining != want {
		return fmt.Errorf("%w: %v of %d bytes instead of %d", ErrMalformed, p.Type, remaining, want)
	}
	body, err := r.br.Peek(remaining)
	if err != nil {
		return err
	}
	if _, err := r.br.Discard(remaining); err != nil { // the bytes stay valid until the next read
		return err
	}
	switch p.Type {
	case Connack:
		if body[0] > 1 {
			return fmt.Errorf("%w: CONNACK with flags %#x", ErrMalformed, body[0])
		}
		p.Present, p.Code = body[0] == 1, body[1]
	case Puback, Unsuback, Suback:
		p.ID = binary.BigEndian.Uint16(body)
		if p.ID == 0 {
			return fmt.Errorf("%w: %v without packet identifier", ErrMalformed, p.Type)
		}
		p.Codes = body[2:]
	}
	return nil
}

func (r *Reader) publish(p *Packet, flags byte, remaining int) error {
	p.Duplicate, p.QoS, p.Retain = flags&0x08 != 0, flags>>1&0x03, flags&0x01 != 0
	if p.QoS > 1 {
		return fmt.Errorf("%w: PUBLISH with QoS %d, subscribed with at most 1", ErrMalformed, p.QoS)
	}
	// The variable header always fits into the buffer.
	head, err := r.br.Peek(min(2, remaining))
	if err != nil {
		return err
	}
	if len(head) < 2 {
		return fmt.Errorf("%w: PUBLISH without topic", ErrMalformed)
	}
	topic := int(binary.BigEndian.Uint16(head))
	n := 2 + topic
	if p.QoS > 0 {
		n += 2
	}
	if topic == 0 || n > remaining {
		return fmt.Errorf("%w: PUBLISH of %d bytes with a topic of %d", ErrMalformed, remaining, topic)
	}
	if r.version == V5 {
		return r.publish5(p, topic, n, remaining)
	}
	if remaining-n > r.maxPayload() {
		return r.skip(p, topic, n, remaining)
	}
	if remaining <= r.br.Size() { // the usual case: one copy, of the payload only
		body, err := r.br.Peek(remaining)
		if err != nil {
			return err
		}
		p.Topic = body[2 : 2+topic]
		if p.QoS > 0 {
			p.ID = binary.BigEndian.Uint16(body[n-2:])
		}
		p.Payload = r.payload(body[n:])
		if _, err := r.br.Discard(remaining); err != nil {
			return err
		}
		return p.checkID()
	}
	if err := r.header(p, topic, n); err != nil {
		return err
	}
	p.Payload = make([]byte, remaining-n)
	_, err = io.ReadFull(r.br, p.Payload)
	return err
}

// header reads topic and identifier of a packet that does not fit the buffer.
func (r *Reader) header(p *Packet, topic, n int) error {
	head := make([]byte, n)
	if _, err := io.ReadFull(r.br, head); err != nil {
		return err
	}
	p.Topic = head[2 : 2+topic]
	if p.QoS > 0 {
		p.ID = binary.BigEndian.Uint16(head[n-2:])
	}
	return p.checkID()
}

func (r *Reader) skip(p *Packet, topic, n, remaining int) error {
	p.Oversized = true
	if err := r.header(p, topic, n); err != nil {
		return err
	}
	_, err := r.br.Discard(remaining - n)
	return err
}

func (p *Packet) checkID() error {
	if p.QoS > 0 && p.ID == 0 {
		return fmt.Errorf("%w: PUBLISH with QoS %d without packet identifier", ErrMalformed, p.QoS)
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
