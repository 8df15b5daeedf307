package brokertest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"external-server/internal/link/mqtt/wire"
)

// PeerOptions of Dial.
type PeerOptions struct {
	Address            string
	Username, Password string
	TLS                *tls.Config
	ClientID           string // "": a random one
	Will               *wire.Will
}

// Peer is a small MQTT client that does nothing by itself: every method writes
// or reads at once, within Timeout. One goroutine may write while another reads.
type Peer struct {
	Conn    net.Conn
	packets *wire.Conn
	nextID  uint16
	early   []Message // received while waiting for something else
}

// Message is one received publication.
type Message struct {
	Topic     string
	Payload   []byte
	QoS       byte
	Retain    bool
	Duplicate bool
}

// Timeout bounds everything a Peer waits for.
const Timeout = 30 * time.Second

// Dial connects and waits for the broker's consent.
func Dial(o PeerOptions) (*Peer, error) {
	if o.ClientID == "" {
		o.ClientID = "peer" + rand.Text()[:16]
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	c, err := wire.Dial(ctx, wire.DialOptions{Address: o.Address, TLS: o.TLS, MaxPayload: wire.MaxRemaining, Connect: wire.ConnectOptions{
		ClientID: o.ClientID, Username: o.Username, Password: o.Password, KeepAlive: 60, Will: o.Will}})
	if err != nil {
		return nil, err
	}
	return &Peer{Conn: c, packets: c}, nil
}

func (p *Peer) write(b []byte) error {
	if err := p.Conn.SetWriteDeadline(time.Now().Add(Timeout)); err != nil {
		return err
	}
	_, err := p.Conn.Write(b)
	return err
}

func (p *Peer) next(a *wire.Packet, timeout time.Duration) error {
	if err := p.Conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	return p.packets.Next(a)
}

func (p *Peer) id() uint16 {
	if p.nextID++; p.nextID == 0 { // not an identifier
		p.nextID = 1
	}
	return p.nextID
}

// Subscribe waits until the broker has accepted the filters.
func (p *Peer) Subscribe(qos byte, filters ...string) error {
	if err := p.write(wire.AppendSubscribe(nil, p.id(), qos, filters...)); err != nil {
		return err
	}
	a, err := p.await(wire.Suback)
	if err != nil {
		return err
	}
	for i, code := range a.Codes {
		if code >= wire.SubackRefused {
			return fmt.Errorf("subscription to %s refused", filters[i])
		}
	}
	return nil
}

// Publish publishes with QoS 1 and waits for the acknowledgement; duplicate sets
// the DUP flag. A broker may acknowledge before it passes the message on; see Ping.
func (p *Peer) Publish(topic string, payload []byte, duplicate bool) error {
	if err := p.write(wire.AppendPublish(nil, topic, payload, 1, p.id(), false, duplicate)); err != nil {
		return err
	}
	_, err := p.await(wire.Puback)
	return err
}

// Retain publishes with QoS 1 and the RETAIN flag: the broker keeps the message
// for later subscribers; an empty one removes what it kept. A broker may acknowledge
// before it passes the message on; who subscribes after Retain gets only what is kept.
func (p *Peer) Retain(topic string, payload []byte) error {
	if err := p.write(wire.AppendPublish(nil, topic, payload, 1, p.id(), true, false)); err != nil {
		return err
	}
	if _, err := p.await(wire.Puback); err != nil {
		return err
	}
	return p.Ping()
}

// Send publishes with QoS 0 and waits for nothing.
func (p *Peer) Send(topic string, payload []byte) error {
	return p.write(wire.AppendPublish(nil, topic, payload, 0, 0, false, false))
}

// Receive returns the next publication.
func (p *Peer) Receive(timeout time.Duration) (Message, error) {
	if len(p.early) > 0 {
		m := p.early[0]
		p.early = p.early[1:]
		return m, nil
	}
	for {
		var a wire.Packet
		if err := p.next(&a, timeout); err != nil {
			return Message{}, err
		}
		if a.Type == wire.Publish {
			return p.take(&a)
		}
	}
}

func (p *Peer) await(t wire.Type) (*wire.Packet, error) {
	for {
		var a wire.Packet
		if err := p.next(&a, Timeout); err != nil {
			return nil, fmt.Errorf("waiting for %v: %w", t, err)
		}
		if a.Type == t {
			return &a, nil
		}
		if a.Type == wire.Publish {
			m, err := p.take(&a)
			if err != nil {
				return nil, err
			}
			p.early = append(p.early, m)
		}
	}
}

func (p *Peer) take(a *wire.Packet) (Message, error) {
	m := Message{Topic: string(a.Topic), Payload: a.Payload, QoS: a.QoS, Retain: a.Retain, Duplicate: a.Duplicate}
	if a.QoS == 0 {
		return m, nil
	}
	return m, p.write(wire.AppendPuback(nil, a.ID))
}

// Ping waits until the broker has handled everything that was written before.
func (p *Peer) Ping() error {
	if err := p.write(wire.AppendPingreq(nil)); err != nil {
		return err
	}
	_, err := p.await(wire.Pingresp)
	return err
}

// Close ends the connection in order.
func (p *Peer) Close() error {
	return errors.Join(p.write(wire.AppendDisconnect(nil)), p.Conn.Close())
}

// PublishOnce connects, publishes one message with QoS 0 and disconnects, as
// command line tools do.
func PublishOnce(o PeerOptions, topic string, payload []byte) error {
	p, err := Dial(o)
	if err != nil {
		return err
	}
	return errors.Join(p.Send(topic, payload), p.Close())
}
