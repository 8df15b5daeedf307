package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// control5 reads a packet of version 5 that is not a PUBLISH.
func (r *Reader) control5(p *Packet, flags byte, remaining int) error {
	if flags != 0 {
		return fmt.Errorf("%w: %v with flags %#x", ErrMalformed, p.Type, flags)
	}
	least := 2
	switch p.Type {
	case Connack, Puback:
	case Suback, Unsuback:
		least = 4 // identifier, length of the properties, one result
	case Pingresp, Disconnect:
		least = 0
	default:
		return fmt.Errorf("%w: a broker must not send %v to this client", ErrMalformed, p.Type)
	}
	if remaining < least || remaining > minBuffer || p.Type == Pingresp && remaining > 0 {
		return fmt.Errorf("%w: %v of %d bytes", ErrMalformed, p.Type, remaining)
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
		return p.connack5(body)
	case Puback, Suback, Unsuback:
		p.ID = binary.BigEndian.Uint16(body)
		if p.ID == 0 {
			return fmt.Errorf("%w: %v without packet identifier", ErrMalformed, p.Type)
		}
		body = body[2:]
	}
	if p.Type == Suback || p.Type == Unsuback {
		p.Codes, err = p.properties(body, p.reason)
		if err == nil && len(p.Codes) == 0 {
			err = fmt.Errorf("%w: %v without result", ErrMalformed, p.Type)
		}
		return err
	}
	if len(body) > 0 { // PUBACK or DISCONNECT with reason
		p.Code = body[0]
		body = body[1:]
	}
	if len(body) > 0 {
		if body, err = p.properties(body, p.reason); err == nil && len(body) > 0 {
			err = fmt.Errorf("%w: %d bytes after the properties of %v", ErrMalformed, len(body), p.Type)
		}
	}
	return err
}

func (p *Packet) connack5(body []byte) error {
	if body[0] > 1 {
		return fmt.Errorf("%w: CONNACK with flags %#x", ErrMalformed, body[0])
	}
	p.Present, p.Code = body[0] == 1, body[1]
	p.Server = &Server{ReceiveMaximum: 65535, MaximumQoS: 2, RetainAvailable: true, WildcardAvailable: true}
	if len(body) == 2 && p.Code != 0 {
		return nil // a broker that knows only older versions says so in their form
	}
	rest, err := p.properties(body[2:], func(id property, value []byte) error {
		s := p.Server
		switch id {
		case propReceiveMaximum:
			if s.ReceiveMaximum = binary.BigEndian.Uint16(value); s.ReceiveMaximum == 0 {
				return fmt.Errorf("%w: receive maximum 0", ErrMalformed)
			}
		case propMaximumPacketSize:
			if s.MaximumPacketSize = binary.BigEndian.Uint32(value); s.MaximumPacketSize == 0 {
				return fmt.Errorf("%w: maximum packet size 0", ErrMalformed)
			}
		case propMaximumQoS:
			if s.MaximumQoS = value[0]; s.MaximumQoS > 1 {
				return fmt.Errorf("%w: maximum QoS %d", ErrMalformed, value[0])
			}
		case propRetainAvailable:
			s.RetainAvailable = value[0] != 0
		case propWildcardAvailable:
			s.WildcardAvailable = value[0] != 0
		case propServerKeepAlive:
			s.KeepAlive, s.HasKeepAlive = binary.BigEndian.Uint16(value), true
		case propSessionExpiry:
			s.SessionExpiry, s.HasSessionExpiry = binary.BigEndian.Uint32(value), true
		case propAssignedClientID:
			s.AssignedClientID = text(value)
		default:
			return p.reason(id, value)
		}
		return nil
	})
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes after the properties of CONNACK", ErrMalformed, len(rest))
	}
	return err
}

// reason takes the reason string out of the properties.
func (p *Packet) reason(id property, value []byte) error {
	if id == propReasonString {
		p.Reason = text(value)
	}
	return nil
}

// publish5 reads a PUBLISH of version 5; its first n bytes are topic and identifier.
// Properties beyond the buffer make it oversized: they are a stranger's.
func (r *Reader) publish5(p *Packet, topic, n, remaining int) error {
	if n == remaining {
		return fmt.Errorf("%w: PUBLISH without properties", ErrMalformed)
	}
	// Topic, identifier and the length of the properties always fit into the buffer.
	head, err := r.br.Peek(min(n+4, remaining))
	if err != nil {
		return err
	}
	length, size, err := varint(head[n:])
	if err != nil {
		return err
	}
	end := n + size + length
	switch {
	case end > remaining:
		return fmt.Errorf("%w: PUBLISH of %d bytes with properties of %d", ErrMalformed, remaining, length)
	case remaining-end > r.maxPayload() || end > r.br.Size():
		return r.skip(p, topic, n, remaining)
	}
	whole := remaining <= r.br.Size() // the usual case: one copy, of the payload only
	body, err := r.br.Peek(end)
	if whole && err == nil {
		body, err = r.br.Peek(remaining)
	}
	if err != nil {
		return err
	}
	if _, err := p.properties(body[n:end], noAlias); err != nil {
		return err
	}
	if p.QoS > 0 {
		p.ID = binary.BigEndian.Uint16(body[n-2:])
	}
	if whole {
		p.Topic = body[2 : 2+topic]
		p.Payload = r.payload(body[end:])
		_, err = r.br.Discard(remaining)
	} else {
		p.Topic = append([]byte(nil), body[2:2+topic]...)
		if _, err = r.br.Discard(end); err == nil {
			p.Payload = make([]byte, remaining-end)
			_, err = io.ReadFull(r.br, p.Payload)
		}
	}
	if err != nil {
		return err
	}
	return p.checkID()
}

func noAlias(id property, _ []byte) error {
	if id == propTopicAlias { // CONNECT has not allowed it
		return fmt.Errorf("%w: PUBLISH with a topic alias", ErrMalformed)
	}
	return nil
}
