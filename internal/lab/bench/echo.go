package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/wire"
)

// EchoOptions are the settings of an Echo.
type EchoOptions struct {
	Address string // of the broker, host:port
	Company string
	// Cars and Connections: with one connection a wildcard serves all cars of the
	// company; with more each has its share of the cars by name.
	Cars        []string
	Connections int
	// CommandEvery is the interval at which every connected car gets a command with
	// the time in it; 0: never.
	CommandEvery time.Duration
}

// Echo runs the cheapest responder there can be until ctx ends, as the measure of
// what broker and load generator leave room for: it parses what it must, answers
// the connect sequence and every status, keeps no time, no order, no device and no
// module. One goroutine per connection reads, answers and writes once for all that
// was received together; nothing is allocated per message. After a lost connection
// it connects again. ready is called when everything is subscribed for the first
// time.
func Echo(ctx context.Context, o EchoOptions, ready func()) error {
	n := max(1, o.Connections)
	var up, running sync.WaitGroup
	up.Add(n)
	errs := make([]error, n)
	for i := range n {
		e := &echo{opts: &o, index: i, cars: make(map[string]*echoCar)}
		running.Go(func() { errs[i] = e.run(ctx, sync.OnceFunc(up.Done)) })
	}
	up.Wait()
	if err := errors.Join(errs...); err == nil {
		ready()
	}
	running.Wait()
	return errors.Join(errs...)
}

// echo is one connection.
type echo struct {
	opts  *EchoOptions
	index int
	nc    *wire.Conn

	mu   sync.Mutex // commands come from another goroutine
	cars map[string]*echoCar
	out  []byte
	body []byte
	id   uint16
}

// echoCar is what must be known of a car.
type echoCar struct {
	topic   string // of the answers
	session []byte
	devices [][]byte // as they came in the Connect
	left    int      // first statuses to come
	counter uint64   // of the next command
	running bool
}

func (e *echo) run(ctx context.Context, up func()) error {
	defer up()
	for first := true; ; first = false {
		err := e.serve(ctx, up)
		if ctx.Err() != nil {
			return nil
		}
		if first && e.nc == nil {
			return err // not even the first time
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (e *echo) serve(ctx context.Context, up func()) error {
	nc, err := wire.Dial(ctx, wire.DialOptions{Address: e.opts.Address, MaxPayload: wire.MaxRemaining, Buffer: 1 << 20, Lend: true,
		Connect: wire.ConnectOptions{ClientID: fmt.Sprintf("echo-%d-%d", time.Now().UnixNano(), e.index)}})
	if err != nil {
		return err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	e.mu.Lock()
	e.nc, e.out = nc, e.out[:0]
	clear(e.cars)
	for i, filters := range e.filters() {
		e.out = wire.AppendSubscribe(e.out, uint16(i+1), 1, filters...)
	}
	err = e.flush()
	e.mu.Unlock()
	if err != nil {
		return err
	}
	if every := e.opts.CommandEvery; every > 0 {
		commands, stop := context.WithCancel(ctx)
		var sending sync.WaitGroup
		sending.Go(func() { e.command(commands, every) })
		defer sending.Wait()
		defer stop()
	}
	return e.read(nc, up)
}

// filters returns what to subscribe, per SUBSCRIBE.
func (e *echo) filters() [][]string {
	if e.opts.Connections <= 1 {
		return [][]string{{e.opts.Company + "/+" + fleet.TopicFromGateway}}
	}
	var out [][]string
	for i := e.index; i < len(e.opts.Cars); i += e.opts.Connections {
		if len(out) == 0 || len(out[len(out)-1]) == 200 {
			out = append(out, nil)
		}
		last := &out[len(out)-1]
		*last = append(*last, e.opts.Company+"/"+e.opts.Cars[i]+fleet.TopicFromGateway)
	}
	return out
}

// read handles what the broker sends until the connection fails.
func (e *echo) read(nc *wire.Conn, up func()) error {
	subscriptions := len(e.filters())
	var p wire.Packet
	for {
		if err := nc.Next(&p); err != nil {
			return err
		}
		var err error
		e.mu.Lock()
		switch p.Type {
		case wire.Publish:
			e.publish(&p)
		case wire.Suback:
			if subscriptions--; subscriptions == 0 {
				up()
			}
		}
		if !nc.Ready() { // nothing more was received together
			err = e.flush()
		}
		e.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (e *echo) flush() error {
	if len(e.out) == 0 {
		return nil
	}
	_, err := e.nc.Write(e.out)
	e.out = e.out[:0]
	return err
}

// publish answers one message.
func (e *echo) publish(p *wire.Packet) {
	topic, b := p.Topic, p.Payload
	if p.QoS > 0 {
		e.out = wire.AppendPuback(e.out, p.ID)
	}
	c := e.cars[string(topic)]
	if c == nil {
		c = &echoCar{topic: strings.TrimSuffix(string(topic), fleet.TopicFromGateway) + fleet.TopicFromServer}
		e.cars[string(topic)] = c
	}
	field, _, n := protowire.ConsumeTag(b)
	if n < 0 {
		return // garbage of a simulated car
	}
	body, n := protowire.ConsumeBytes(b[n:])
	if n < 0 {
		return
	}
	switch field {
	case 1:
		e.connect(c, body)
	case 2:
		e.status(c, body)
	}
}

func (e *echo) connect(c *echoCar, b []byte) {
	c.devices, c.running, c.session = nil, false, nil
	for len(b) > 0 {
		field, _, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		value, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return
		}
		switch field {
		case 1:
			c.session = append([]byte(nil), value...)
		case 4:
			c.devices = append(c.devices, append([]byte(nil), value...))
		}
		b = b[n+m:]
	}
	c.left = len(c.devices)
	e.send(c, 1, 0, 0, nil)
}

func (e *echo) status(c *echoCar, b []byte) {
	var counter uint64
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		if field == 3 {
			counter, _ = protowire.ConsumeVarint(b)
			break
		}
		if n = protowire.ConsumeFieldValue(field, typ, b); n < 0 {
			return
		}
		b = b[n:]
	}
	e.send(c, 2, 3, counter, nil)
	if c.left == 0 {
		return
	}
	if c.left--; c.left == 0 {
		for _, d := range c.devices {
			e.send(c, 3, 2, c.counter, protowire.AppendBytes([]byte{0x0a}, d))
			c.counter++
		}
		c.running = true
	}
}

// send queues a message: member of ExternalServer, field of its counter (0: none)
// and the device command.
func (e *echo) send(c *echoCar, member, counterField protowire.Number, counter uint64, command []byte) {
	size := 2 + len(c.session)
	if counterField > 0 && counter > 0 {
		size += 1 + protowire.SizeVarint(counter)
	}
	if command != nil {
		size += 1 + protowire.SizeBytes(len(command))
	}
	p := protowire.AppendVarint(append(e.body[:0], byte(member<<3|2)), uint64(size))
	p = protowire.AppendBytes(append(p, 0x0a), c.session)
	if counterField > 0 && counter > 0 {
		p = protowire.AppendVarint(append(p, byte(counterField<<3)), counter)
	}
	if command != nil {
		p = protowire.AppendBytes(append(p, 0x1a), command)
	}
	e.body = p
	if e.id++; e.id == 0 {
		e.id = 1
	}
	e.out = wire.AppendPublish(e.out, c.topic, p, 1, e.id, false, false)
}

// command sends every connected car a command that says when it was made.
func (e *echo) command(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e.mu.Lock()
		for _, c := range e.cars {
			if !c.running || len(c.devices) == 0 {
				continue
			}
			data := strconv.AppendInt(nil, time.Now().UnixNano(), 10)
			device := protowire.AppendBytes([]byte{0x0a}, c.devices[0])
			e.send(c, 3, 2, c.counter, protowire.AppendBytes(append(device, 0x12), data))
			c.counter++
		}
		err := e.flush()
		e.mu.Unlock()
		if err != nil {
			return
		}
	}
}
