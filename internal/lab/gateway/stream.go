package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/link/mqtt/wire"
)

// MaxPayload is the longest payload that a gateway receives, in bytes.
const MaxPayload = 16 << 20

// Sizes of a stream.
const (
	streamAcks     = 10 // acknowledgements written without waiting for the end of a batch
	streamTimeout  = 5 * time.Second
	streamBufBytes = 256 << 10
)

// streamLimits are what differs between the connection of one gateway and a shared one.
type streamLimits struct {
	queue    int           // messages waiting because the window is full
	window   int           // messages that the broker has not acknowledged
	pause    time.Duration // before the first attempt to connect again; it doubles
	maxPause time.Duration
	timeout  time.Duration // of an attempt to connect
}

// sharedLimits are those of a connection of many gateways.
func sharedLimits() streamLimits {
	return streamLimits{queue: 1 << 16, window: 1000, pause: 50 * time.Millisecond, maxPause: streamTimeout, timeout: streamTimeout}
}

// stream is the MQTT connection of one gateway or of many: what becomes ready while a
// batch of received messages is handled leaves in one write, and nothing is allocated
// per message. A load generator must cost less than what it measures.
//
// After a lost connection it connects again, without any subscription (GW-55).
type stream struct {
	broker   Broker
	clientID string
	limits   streamLimits
	receive  func(topic, payload []byte) // topic is valid until it returns

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{}
	reads  atomic.Int64 // when something came the last time, Unix nanoseconds

	mu       sync.Mutex
	alive    bool
	batch    bool   // the reader handles messages and will wake the writer
	woken    bool   // a wake is on its way
	out      []byte // packets to be written
	acks     int    // acknowledgements in out
	queue    []outgoing
	inFlight int
	lastID   uint16
	used     [1 << 16 / 64]uint64 // packet identifiers in flight
	pending  map[uint16]chan<- error
}

// dialStream connects; an error says why the broker was not reached.
func dialStream(broker Broker, clientID string, limits streamLimits, receive func(topic, payload []byte)) (*stream, error) {
	s := &stream{broker: broker, clientID: clientID, limits: limits, receive: receive, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	conn, err := s.connect()
	if err != nil {
		s.cancel()
		return nil, err
	}
	s.reset()
	go s.run(conn)
	return s, nil
}

// close says goodbye and waits until the connection is gone.
func (s *stream) close() {
	s.cancel()
	<-s.done
}

// run keeps the connection until close.
func (s *stream) run(conn *wire.Conn) {
	defer close(s.done)
	for {
		s.serve(conn)
		for failures := 0; ; failures++ {
			pause := min(s.limits.maxPause, s.limits.pause<<min(failures, 8))
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(pause/2 + rand.N(pause)):
			}
			var err error
			if conn, err = s.connect(); err == nil {
				s.reset()
				break
			}
		}
	}
}

func (s *stream) connect() (*wire.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.limits.timeout)
	defer cancel()
	return wire.Dial(ctx, wire.DialOptions{Address: s.broker.Address, TLS: s.broker.TLS, MaxPayload: MaxPayload,
		Connect: wire.ConnectOptions{ClientID: s.clientID, Username: s.broker.Username, Password: s.broker.Password,
			KeepAlive: uint16(keepAlive / time.Second)}})
}

// reset prepares for a new connection: nothing of an earlier one is left.
func (s *stream) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive, s.batch, s.woken = true, false, false
	s.out, s.acks, s.queue = s.out[:0], 0, nil
	s.inFlight, s.used = 0, [len(s.used)]uint64{}
	s.pending = make(map[uint16]chan<- error)
	s.reads.Store(time.Now().UnixNano())
}

var errStreamLost = errors.New("the connection to the broker was lost")

// serve reads and writes until the connection is lost or the stream closed.
func (s *stream) serve(conn *wire.Conn) {
	ended := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		s.write(conn, ended)
		conn.Close() // ends the reader
	})
	s.read(conn)
	close(ended)
	conn.Close() // ends a write that waits
	writing.Wait()
	s.mu.Lock()
	s.alive = false
	for _, answer := range s.pending {
		answer <- errStreamLost
	}
	s.pending = nil
	s.mu.Unlock()
}

func (s *stream) write(nc *wire.Conn, ended <-chan struct{}) {
	tick := time.NewTicker(keepAlive / 3)
	defer tick.Stop()
	var buf []byte
	for {
		goodbye := false
		select {
		case <-ended:
			return
		case <-s.wake:
		case <-tick.C:
			if time.Since(time.Unix(0, s.reads.Load())) > 2*keepAlive {
				return // the broker is silent
			}
			s.mu.Lock()
			s.out = wire.AppendPingreq(s.out)
			s.mu.Unlock()
		case <-s.ctx.Done():
			goodbye = true
		}
		s.mu.Lock()
		s.woken = false
		buf, s.out, s.acks = s.out, buf[:0], 0
		s.mu.Unlock()
		if goodbye {
			buf = wire.AppendDisconnect(buf)
		}
		if len(buf) > 0 {
			if nc.SetWriteDeadline(time.Now().Add(streamTimeout)) != nil {
				return
			}
			if _, err := nc.Write(buf); err != nil {
				return
			}
		}
		if goodbye {
			return
		}
		if cap(buf) > streamBufBytes {
			buf = nil
		}
	}
}

// signal wakes the writer unless another goroutine will; s.mu is held.
func (s *stream) signal() {
	if s.woken || s.batch {
		return
	}
	s.woken = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *stream) read(reader *wire.Conn) {
	var p wire.Packet
	for {
		if !reader.Ready() {
			s.mu.Lock()
			s.batch = false
			if len(s.out) > 0 {
				s.signal()
			}
			s.mu.Unlock()
		}
		if reader.Next(&p) != nil {
			return
		}
		s.reads.Store(time.Now().UnixNano())
		s.mu.Lock()
		s.batch = true
		switch p.Type {
		case wire.Puback:
			s.release(p.ID)
		case wire.Suback, wire.Unsuback:
			s.answered(&p)
		case wire.Publish:
			if p.QoS > 0 {
				s.out = wire.AppendPuback(s.out, p.ID)
				if s.acks++; s.acks >= streamAcks { // the broker keeps few messages in flight
					s.batch = false
					s.signal()
					s.batch = true
				}
			}
		}
		s.mu.Unlock()
		if p.Type == wire.Publish && !p.Oversized {
			s.receive(p.Topic, p.Payload)
		}
	}
}

// publish queues a message with QoS 1; false: the connection is down or the queue is
// full. The stream owns payload.
func (s *stream) publish(topic string, payload []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.alive || len(s.queue) >= s.limits.queue:
		return false
	case s.inFlight >= s.limits.window:
		s.queue = append(s.queue, outgoing{topic, payload})
	default:
		s.append(topic, payload)
		s.signal()
	}
	return true
}

func (s *stream) append(topic string, payload []byte) {
	s.out = wire.AppendPublish(s.out, topic, payload, 1, s.reserveID(), false, false)
	s.inFlight++
}

// reserveID returns a packet identifier that is not in use. There is one, because the
// window is smaller than their range.
func (s *stream) reserveID() uint16 {
	for {
		s.lastID++
		if s.lastID != 0 && s.used[s.lastID/64]&(1<<(s.lastID%64)) == 0 {
			s.used[s.lastID/64] |= 1 << (s.lastID % 64)
			return s.lastID
		}
	}
}

// releaseID makes an identifier free again; false: it is not in use.
func (s *stream) releaseID(id uint16) bool {
	if s.used[id/64]&(1<<(id%64)) == 0 {
		return false
	}
	s.used[id/64] &^= 1 << (id % 64)
	return true
}

// release handles an acknowledgement and lets the next message go.
func (s *stream) release(id uint16) {
	if s.pending[id] != nil || !s.releaseID(id) {
		return
	}
	s.inFlight--
	if len(s.queue) > 0 {
		m := s.queue[0]
		s.queue[0] = outgoing{}
		if s.queue = s.queue[1:]; len(s.queue) == 0 {
			s.queue = nil
		}
		s.append(m.topic, m.payload)
	}
}

// subscribe asks for topics; the answer comes on the channel. unsubscribe ends the
// subscription without waiting for its answer.
func (s *stream) subscribe(topics ...string) <-chan error {
	answer := make(chan error, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.alive {
		answer <- errors.New("the connection to the broker is down")
		return answer
	}
	id := s.reserveID()
	s.pending[id] = answer
	s.out = wire.AppendSubscribe(s.out, id, 1, topics...)
	s.signal()
	return answer
}

func (s *stream) unsubscribe(topics ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.alive {
		return
	}
	id := s.reserveID()
	s.pending[id] = make(chan error, 1)
	s.out = wire.AppendUnsubscribe(s.out, id, topics...)
	s.signal()
}

func (s *stream) answered(p *wire.Packet) {
	answer := s.pending[p.ID]
	if answer == nil {
		return
	}
	delete(s.pending, p.ID)
	s.releaseID(p.ID)
	for _, code := range p.Codes {
		if code >= wire.SubackRefused {
			answer <- errors.New("the broker refuses the subscription to the topics of a gateway")
			return
		}
	}
	answer <- nil
}
