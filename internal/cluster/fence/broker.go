package fence

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"external-server/internal/link/mqtt/quickack"
	"external-server/internal/link/mqtt/wire"
)

// Broker says how the broker is reached.
type Broker struct {
	Address            string // host:port
	Username, Password string
	// TLS returns the settings for the next connection; an empty ServerName means the host of
	// Address. A nil function, and a nil result, mean no TLS.
	TLS func() (*tls.Config, error)
	// Member names this replica; its connections have client identifiers of their own that begin with
	// it: es-CLUSTER-member-MEMBER-.
	Member string
	// Logger is told of records that are left out; nil: it is not.
	Logger *slog.Logger
	// Answered is called when the broker has answered something, on the goroutine that has asked; nil: it is not.
	Answered func()
}

const (
	// patience bounds each operation beside its context, that of Records for each bucket.
	patience = 5 * time.Second
	// absentAfter is how long a retained message may come after the broker has answered all that
	// was asked before it counts as absent.
	absentAfter = 300 * time.Millisecond
	keepAlive   = 15 // s
	// sessionExpiry is for how many seconds the broker keeps a shard's session, as link/mqtt asks.
	sessionExpiry  = 120
	receiveMaximum = 4096
)

// client is one connection for one purpose.
type client struct {
	*wire.Conn
	b      Broker
	topics string // of the cluster begin with it
	id     uint16
	next   wire.Packet
	done   func()
}

// dial connects; ctx bounds the life of the connection, and patience does unless it is renewed.
func (b Broker) dial(ctx context.Context, cluster string, hello wire.ConnectOptions, maxPayload int) (*client, error) {
	until := time.Now().Add(patience)
	dialing, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	hello.Version, hello.Username, hello.Password, hello.KeepAlive = wire.V5, b.Username, b.Password, keepAlive
	o := wire.DialOptions{Address: b.Address, Connect: hello, MaxPayload: maxPayload, Wrap: quickack.Wrap}
	if b.TLS != nil {
		cfg, err := b.TLS()
		if err != nil {
			return nil, err
		}
		if cfg != nil {
			if o.TLS = cfg.Clone(); o.TLS.ServerName == "" {
				o.TLS.ServerName, _, _ = net.SplitHostPort(b.Address)
			}
		}
	}
	conn, err := wire.Dial(dialing, o)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", b.Address, explain(err, context.Cause(dialing)))
	}
	b.answered()
	_ = conn.SetDeadline(until) // or the first use fails
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return &client{Conn: conn, b: b, topics: topics(cluster), done: func() { stop(); conn.Close() }}, nil
}

func (b Broker) answered() {
	if b.Answered != nil {
		b.Answered()
	}
}

// renew begins the patience anew, as the broker answers.
func (c *client) renew(ctx context.Context) error {
	err := c.SetDeadline(time.Now().Add(patience))
	if ctx.Err() != nil { // it may have set an earlier one before
		return context.Cause(ctx)
	}
	return err
}

// explain says why there is no connection.
func explain(err, ended error) error {
	var refused *wire.RefusedError
	switch {
	case ended != nil:
		return fmt.Errorf("it has not answered: %w", ended)
	case !errors.As(err, &refused):
		return err
	}
	switch refused.Code {
	case 0x84, 1:
		return fmt.Errorf("it does not speak MQTT 5, which a cluster needs: %w", err)
	case 0x86, 0x87, 4, 5:
		return fmt.Errorf("it refuses this server: check user name, password and the broker's rights: %w", err)
	}
	return err
}

// member connects as this replica, not as a shard. Several such connections may exist at a time.
func (b Broker) member(ctx context.Context, cluster string, maxPayload int) (*client, error) {
	name := fmt.Sprintf("%s-member-%s-%s", ClientID(cluster), b.Member, rand.Text()[:8])
	return b.dial(ctx, cluster, wire.ConnectOptions{ClientID: name}, maxPayload)
}

// fail completes an error.
func (c *client) fail(topic string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", patience)
	} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the broker has closed the connection; does the user of this server have the right to read and write " + c.topics + "#?")
	}
	return fmt.Errorf("broker %s, topic %s: %w", c.b.Address, topic, err)
}

// await reads packets, gives messages to each, and returns the packet of the kind.
func (c *client) await(kind wire.Type, each func(*wire.Packet) error) (*wire.Packet, error) {
	for {
		p := &c.next
		if err := c.Next(p); err != nil {
			return nil, err
		}
		switch p.Type {
		case kind:
			c.b.answered()
			return p, nil
		case wire.Publish:
			if each != nil {
				if err := each(p); err != nil {
					return nil, err
				}
			}
		case wire.Disconnect:
			return nil, fmt.Errorf("the broker has ended the connection with reason %#x %s", p.Code, p.Reason)
		}
	}
}

// subscribe hands the retained messages that match the filter to each. QoS 0: what is
// retained with it comes so anyway. The barrier behind it goes with the same write: brokers
// that leave Nagle's algorithm on take 40 ms for each exchange unless it is acknowledged at once.
func (c *client) subscribe(filter string, each func(*wire.Packet) error) error {
	c.id++
	if _, err := c.Write(wire.AppendPingreq(wire.V5.AppendSubscribe(nil, c.id, 0, filter))); err != nil {
		return err
	}
	p, err := c.await(wire.Suback, each)
	if err != nil {
		return err
	}
	if code := p.Codes[0]; code >= wire.SubackRefused {
		return fmt.Errorf("the broker refuses the subscription (reason %#x): allow the user of this server to read and write %s#", code, c.topics)
	}
	_, err = c.await(wire.Pingresp, each)
	return err
}

// barrier waits until the broker has answered what was asked before, and sent what that caused.
func (c *client) barrier(each func(*wire.Packet) error) error {
	if _, err := c.Write(wire.AppendPingreq(nil)); err != nil {
		return err
	}
	_, err := c.await(wire.Pingresp, each)
	return err
}

// retain publishes a retained message, QoS 1, and waits for the broker to have it.
func (c *client) retain(topic string, payload []byte) error {
	c.id++
	if _, err := c.Write(wire.V5.AppendPublish(nil, topic, payload, 1, c.id, true, false)); err != nil {
		return err
	}
	for {
		p, err := c.await(wire.Puback, nil)
		if err != nil {
			return err
		}
		if p.ID != c.id {
			continue
		}
		if p.Code >= 0x80 {
			return fmt.Errorf("the broker refuses the message (reason %#x %s): allow the user of this server to read and write %s#", p.Code, p.Reason, c.topics)
		}
		return nil
	}
}

// Read returns the epoch that the broker has of a shard; found is false if it has none. It uses
// a connection of its own. What is at the topic and is no epoch is an error.
func Read(ctx context.Context, b Broker, cluster string, shard int) (e Epoch, found bool, err error) {
	topic := EpochTopic(cluster, shard)
	c, err := b.member(ctx, cluster, MaxEpoch)
	if err != nil {
		return e, false, err
	}
	defer c.done()
	each := func(p *wire.Packet) error {
		if string(p.Topic) != topic {
			return nil
		}
		if p.Oversized {
			return fmt.Errorf("a message of %d bytes is no epoch; remove it by publishing an empty retained one", p.Size)
		}
		if e, err = Decode(p.Payload); err != nil {
			return fmt.Errorf("what is retained there is no epoch; remove it by publishing an empty retained one: %w", err)
		}
		found = true
		return nil
	}
	if err := c.subscribe(topic, each); err != nil {
		return Epoch{}, false, c.fail(topic, err)
	}
	if !found { // some brokers send retained messages later
		if err := c.linger(ctx, each); err != nil {
			return Epoch{}, false, c.fail(topic, err)
		}
	}
	return e, found, nil
}

func (c *client) linger(ctx context.Context, each func(*wire.Packet) error) error {
	select {
	case <-time.After(absentAfter):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return c.barrier(each)
}

// Seize ends the connection of the replica that serves the shard, if there is one, and publishes e as its epoch. The
// broker goes on keeping the shard's session; nothing of it is acknowledged. kept tells whether there
// was one: otherwise what gateways have sent meanwhile is lost, and no session of theirs can go on.
// The error is link.ErrFenced if the broker has a higher epoch than e; then nothing has changed.
func Seize(ctx context.Context, b Broker, cluster string, shard int, e Epoch) (kept bool, err error) {
	topic := EpochTopic(cluster, shard)
	mayConnect := MayConnect(b, cluster, func(int) *Standing { return NewStanding(e, e.Epoch) })
	if err := mayConnect(ctx, shard); err != nil { // before the owner is disturbed
		return false, err
	}
	c, err := b.dial(ctx, cluster, wire.ConnectOptions{ClientID: shardID(cluster, shard), Continue: true, SessionExpiry: sessionExpiry, ReceiveMaximum: receiveMaximum}, 1)
	if err != nil {
		return false, err
	}
	defer c.done()
	// From here on no one else can publish the shard's epoch without ending this connection.
	if err := mayConnect(ctx, shard); err != nil {
		return false, err
	}
	if err := c.retain(topic, e.Encode()); err != nil {
		return false, c.fail(topic, err)
	}
	return c.Present(), nil
}

// Check tells whether the user of this server may do what the fence needs: publish a retained
// message and read it. Some brokers accept a retained message and show it to no client. Call
// it before shards are claimed.
func Check(ctx context.Context, b Broker, cluster string) error {
	c, err := b.member(ctx, cluster, MaxEpoch)
	if err != nil {
		return err
	}
	defer c.done()
	topic := topics(cluster) + "check/" + rand.Text()[:8]
	if err := c.retain(topic, []byte("check")); err != nil {
		return c.fail(topic, err)
	}
	found := false
	each := func(p *wire.Packet) error {
		found = found || p.Retain && string(p.Topic) == topic
		return nil
	}
	err = c.subscribe(topic, each)
	if err == nil && !found {
		err = c.linger(ctx, each)
	}
	if err == nil && !found {
		err = fmt.Errorf("a retained message that was published cannot be read: allow the user of this server to read and write %s#, and retained messages", c.topics)
	}
	if err := errors.Join(err, c.retain(topic, nil)); err != nil {
		return c.fail(topic, err)
	}
	return nil
}

// Clear removes what the broker has of a shard: its epoch and its records. It is for a shard that
// no server serves any more, for example before the number of shards changes.
func Clear(ctx context.Context, b Broker, cluster string, shard int) error {
	records, err := Records(ctx, b, cluster, shard)
	if err != nil {
		return err
	}
	c, err := b.member(ctx, cluster, 1)
	if err != nil {
		return err
	}
	defer c.done()
	for car := range records {
		topic := RecordTopic(cluster, shard, car)
		if err := c.retain(topic, nil); err != nil {
			return c.fail(topic, err)
		}
	}
	topic := EpochTopic(cluster, shard)
	if err := c.retain(topic, nil); err != nil {
		return c.fail(topic, err)
	}
	return nil
}
