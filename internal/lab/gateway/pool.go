package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Pool carries many gateways on a few broker connections, because ten thousand
// cars in one process cannot have one each. For the server there is no difference:
// topics and messages are those of CONN-1 to CONN-3. A gateway hears nothing from the time
// it closes its connection until it has subscribed again.
type Pool struct {
	conns []*poolConn

	mu   sync.Mutex
	next int             // connection of the next gateway
	cars map[string]bool // with a gateway on the pool
}

// Limits of a shared connection.
const (
	poolQueue   = 1 << 16          // gateways waiting for their subscription
	poolBatch   = 100              // gateways per SUBSCRIBE
	poolTimeout = 10 * time.Second // for the answer to a SUBSCRIBE
)

// NewPool connects to the broker with the given number of connections, 1 to 1000.
// It returns an error when the broker is not reached; later it reconnects by
// itself. The caller owns the Pool, closes its gateways first, and then the Pool.
func NewPool(broker Broker, connections int) (*Pool, error) {
	if err := broker.check(); err != nil {
		return nil, err
	}
	if connections < 1 || connections > 1000 {
		return nil, fmt.Errorf("%d connections for a pool of gateways: expected 1 to 1000", connections)
	}
	p := &Pool{cars: make(map[string]bool)}
	for range connections {
		c, err := newPoolConn(broker)
		if err != nil {
			p.Close()
			return nil, err
		}
		p.conns = append(p.conns, c)
	}
	return p, nil
}

// Close disconnects and waits for what the Pool has started.
func (p *Pool) Close() {
	for _, c := range p.conns {
		c.close()
	}
}

// attach gives a gateway its place on one of the connections.
func (p *Pool) attach(g *Gateway) (connection, error) {
	key := g.car.String()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cars[key] {
		return nil, fmt.Errorf("car %s has a gateway on this pool already", key)
	}
	p.cars[key] = true
	c := p.conns[p.next%len(p.conns)]
	p.next++
	m := &member{pool: p, conn: c, gateway: g}
	c.mu.Lock()
	c.members[key] = m
	c.mu.Unlock()
	return m, nil
}

// member is one gateway on a shared connection.
type member struct {
	pool    *Pool
	conn    *poolConn
	gateway *Gateway
	gen     atomic.Uint64 // of the connection that is open; 0: none, nothing is heard
}

func (m *member) open(gen uint64) {
	select {
	case m.conn.opening <- request{m, gen}:
	default: // open must not wait; the queue is larger than what a connection carries well
		m.gateway.linkReport(gen, errors.New("too many gateways of this pool are connecting at once"))
	}
}

func (m *member) publish(topic string, payload []byte) bool {
	return m.conn.stream.publish(topic, payload)
}

func (m *member) close() { m.gen.Store(0) }

func (m *member) shutdown() {
	m.close()
	c, key := m.conn, m.gateway.car.String()
	c.mu.Lock()
	delete(c.members, key)
	c.mu.Unlock()
	m.pool.mu.Lock()
	delete(m.pool.cars, key)
	m.pool.mu.Unlock()
	c.stream.unsubscribe(m.gateway.topics.down, m.gateway.topics.notification)
}

// request asks for the subscription of a member.
type request struct {
	member *member
	gen    uint64
}

// poolConn is one shared connection.
type poolConn struct {
	stream  *stream
	opening chan request
	stop    chan struct{}
	done    chan struct{}

	mu      sync.Mutex
	members map[string]*member // by <company>/<car>
}

func newPoolConn(broker Broker) (*poolConn, error) {
	c := &poolConn{
		opening: make(chan request, poolQueue), stop: make(chan struct{}), done: make(chan struct{}),
		members: make(map[string]*member),
	}
	var err error
	if c.stream, err = dialStream(broker, fmt.Sprintf("gateways-%012x", rand.Uint64()>>16), sharedLimits(), c.receive); err != nil {
		return nil, err
	}
	go c.subscribe()
	return c, nil
}

func (c *poolConn) close() {
	close(c.stop)
	<-c.done
	c.stream.close()
}

// receive gives a message to the gateway of its topic.
func (c *poolConn) receive(topic, payload []byte) {
	end := bytes.LastIndexByte(topic, '/')
	if end < 0 {
		return
	}
	c.mu.Lock()
	m := c.members[string(topic[:end])]
	c.mu.Unlock()
	if m == nil {
		return
	}
	gen := m.gen.Load()
	if gen == 0 {
		return
	}
	t := &m.gateway.topics
	for _, known := range []string{t.down, t.notification} {
		if string(topic) == known {
			m.gateway.receive(gen, known, payload)
		}
	}
}

// subscribe serves the requests of members in batches until the connection is
// closed.
func (c *poolConn) subscribe() {
	defer close(c.done)
	for {
		var batch []request
		select {
		case <-c.stop:
			return
		case r := <-c.opening:
			batch = append(batch, r)
		}
		for more := true; more && len(batch) < poolBatch; {
			select {
			case r := <-c.opening:
				batch = append(batch, r)
			default:
				more = false
			}
		}
		err := c.subscribeBatch(batch)
		for _, r := range batch {
			if err == nil {
				r.member.gen.Store(r.gen)
			}
			r.member.gateway.linkReport(r.gen, err)
		}
	}
}

func (c *poolConn) subscribeBatch(batch []request) error {
	topics := make([]string, 0, 2*len(batch))
	for _, r := range batch {
		topics = append(topics, r.member.gateway.topics.down, r.member.gateway.topics.notification)
	}
	limit := time.NewTimer(poolTimeout)
	defer limit.Stop()
	select {
	case err := <-c.stream.subscribe(topics...):
		return err
	case <-c.stop:
		return errors.New("the pool was closed")
	case <-limit.C:
		return fmt.Errorf("subscribe %d gateways: no answer of the broker within %v", len(batch), poolTimeout)
	}
}
