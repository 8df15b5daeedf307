package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt/wire"
)

// Packet identifiers: messages and subscriptions use ranges of their own, so
// that an acknowledgement can belong to one of them only.
const (
	lastPublishID = 0xEFFF
	firstSubID    = 0xF000
)

// conn is one connection to the broker and the cars it serves.
type conn struct {
	link     *Link
	index    int
	clientID string
	log      *slog.Logger
	cars     int // attached ports; guarded by link.mu
	stats    stats
	wake     chan struct{} // capacity 1: the writer has something to do
	reads    atomic.Uint64 // from the socket: proof that the broker lives

	sendMu sync.Mutex // before mu; held while packets are collected and written
	send   *sender

	mu       sync.Mutex
	ports    map[string]*port  // by incoming topic
	watches  map[string]*watch // by company
	overlaps map[string]*overlap
	alive    bool            // CONNACK was received; packets may be queued
	woken    bool            // a token is in wake or the writer is about to look
	heard    []link.Receiver // of the reader: who got messages since the last write
	batch    bool            // the reader is in the middle of received packets and will wake the writer at their end
	stopping bool            // the writer waits until everything is sent and acknowledged

	control []byte   // encoded packets other than messages, to be written first
	acks    int      // PUBACKs in control
	joining []*port  // to be subscribed
	leaving []string // topics to be unsubscribed
	up      []*port  // the reader is to tell LinkUp, or LinkDown if the topic was refused
	notes   []func() // to be logged as soon as no lock is held

	first, last *port // ring of ports with queued messages
	queued      int   // messages queued in all ports

	inflight  [(lastPublishID + 64) / 64]uint64 // packet identifiers in use
	inflights int
	lastID    uint16
	progress  time.Time // since when no acknowledgement has come; zero: since the next tick
	requests  map[uint16]*request
	lastSubID uint16
	initial   int // requests of the first subscription that are not answered yet
}

func newConn(l *Link, index int) *conn {
	c := &conn{
		link: l, index: index, clientID: newClientID(), log: l.log,
		wake:     make(chan struct{}, 1),
		ports:    make(map[string]*port),
		watches:  make(map[string]*watch),
		overlaps: make(map[string]*overlap),
	}
	if index > 0 || l.opts.Connections > 1 {
		c.log = c.log.With("connection", index)
	}
	return c
}

// stableAfter is how long a connection must have lived for the next attempt to
// come at once.
const stableAfter = 5 * time.Second

// run keeps the connection until ctx ends.
func (c *conn) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		started := time.Now()
		err := c.connectAndServe(ctx)
		if ctx.Err() != nil {
			return
		}
		stable := time.Since(started) > stableAfter
		if stable {
			failures = 0
		}
		pause := backoff(failures, c.link.tuning.Load().RetryMax)
		c.stats.failed(err)
		c.link.reports.down(c, err, pause, stable)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// backoff returns a random pause that doubles with every failure. Chance keeps
// the connections of a fleet of servers apart.
func backoff(failures int, longest time.Duration) time.Duration {
	d := longest
	if failures < 16 {
		d = min(longest, 100*time.Millisecond<<failures)
	}
	return d/2 + rand.N(d/2+1)
}

func (c *conn) connectAndServe(ctx context.Context) error {
	nc, reader, err := c.connect(ctx)
	if err != nil {
		return c.explain(err)
	}
	defer nc.Close()
	c.begin()
	started := time.Now()
	err = c.serve(ctx, nc, reader)
	switch {
	case ctx.Err() != nil:
		err = errStopped
	case c.unanswered() && isClosed(err) && time.Since(started) < c.link.opts.KeepAlive:
		err = closedAfterSubscribe{err}
	default:
		err = fmt.Errorf("connection lost: %w", c.explain(err))
	}
	c.end(err)
	return err
}

var errStopped = errors.New("the link was stopped")

// connect returns a connection that the broker has accepted.
func (c *conn) connect(ctx context.Context) (_ net.Conn, _ *wire.Reader, result error) {
	opts := &c.link.opts
	ctx, cancel := context.WithTimeout(ctx, opts.ConnectTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", opts.Address)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if result != nil {
			nc.Close()
		}
	}()
	if t, ok := nc.(*net.TCPConn); ok {
		if err := t.SetNoDelay(true); err != nil { // CONN-12
			return nil, nil, err
		}
	}
	if opts.TLS != nil {
		cfg, err := opts.TLS()
		if err != nil {
			return nil, nil, err
		}
		if cfg != nil {
			cfg = cfg.Clone()
			if cfg.ServerName == "" {
				cfg.ServerName, _, _ = net.SplitHostPort(opts.Address)
			}
			t := tls.Client(nc, cfg)
			if err := t.HandshakeContext(ctx); err != nil {
				return nil, nil, tlsError{withoutAddresses(err)}
			}
			nc = t
		}
	}
	reader := wire.NewReader(&countingReader{nc, c}, 0)
	reader.LimitBy(func() int { return c.link.tuning.Load().MaxPayload })
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err = c.handshake(nc, reader)
	if !stop() && err == nil { // the deadline may have been set
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	return nc, reader, nil
}

// handshake sends CONNECT and waits for CONNACK.
func (c *conn) handshake(nc net.Conn, reader *wire.Reader) error {
	opts, tuning := &c.link.opts, c.link.tuning.Load()
	hello := wire.ConnectOptions{
		ClientID:  c.clientID,
		Username:  tuning.Username,
		Password:  tuning.Password,
		KeepAlive: uint16(opts.KeepAlive / time.Second),
	}
	if c.hasPresence() {
		hello.Will = &wire.Will{Topic: opts.Presence, Payload: []byte("offline"), Retain: true}
	}
	_, isTLS := nc.(*tls.Conn) // version 1.3 refuses a client certificate after the handshake
	if _, err := nc.Write(wire.AppendConnect(nil, hello)); err != nil {
		return noAnswerError{withoutAddresses(err), isTLS}
	}
	var p wire.Packet
	if err := reader.Next(&p); err != nil {
		return noAnswerError{withoutAddresses(err), isTLS}
	}
	if p.Type != wire.Connack {
		return fmt.Errorf("%w: %v instead of CONNACK", wire.ErrMalformed, p.Type)
	}
	if p.Code != 0 {
		return refusedError(p.Code)
	}
	return nil
}

func (c *conn) hasPresence() bool { return c.link.opts.Presence != "" && c.index == 0 }

// begin prepares a fresh session: nothing of an earlier one is left (DEF-20).
func (c *conn) begin() {
	c.mu.Lock()
	c.alive, c.batch, c.woken, c.stopping = true, false, true, false
	c.inflight, c.inflights = [len(c.inflight)]uint64{}, 0
	c.requests = make(map[uint16]*request)
	c.control = c.control[:0]
	c.acks, c.initial = 0, 0
	c.joining, c.leaving, c.up, c.notes = nil, nil, nil, nil
	if c.hasPresence() {
		c.control = wire.AppendPublish(c.control, c.link.opts.Presence, []byte("online"), 1, c.takeID(), true, false)
	}
	c.subscribeAll()
	if c.initial == 0 {
		c.complete()
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	c.unlockAndNote()
}

// complete says that all subscriptions are restored; c.mu is held.
func (c *conn) complete() {
	c.stats.connected()
	c.notes = append(c.notes, func() { c.link.reports.up(c) })
}

// unlockAndNote releases c.mu and logs what was noted: a slow log must not hold
// up the cars.
func (c *conn) unlockAndNote() {
	notes := c.notes
	c.notes = nil
	c.mu.Unlock()
	for _, note := range notes {
		note()
	}
}

// unanswered tells whether subscriptions of the beginning have no answer yet.
func (c *conn) unanswered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.initial > 0
}

// end forgets what belonged to the connection and tells the receivers.
func (c *conn) end(reason error) {
	c.mu.Lock()
	c.alive, c.batch = false, false
	var lost []link.Receiver
	for _, p := range c.ports {
		if p.up {
			lost = append(lost, p.receiver)
		}
		p.up, p.subscribed, p.refused, p.denied, p.waiting, p.next = false, false, false, false, false, nil
		p.queue, p.bytes = fifo{}, 0
	}
	c.stats.linkDown.Add(uint64(c.queued)) // also of closed ports
	c.queued = 0
	for _, w := range c.watches {
		w.granted, w.refused, w.denied = false, false, false
	}
	c.first, c.last = nil, nil
	clear(c.overlaps)
	c.stats.disconnected()
	c.mu.Unlock()
	for _, r := range lost {
		r.LinkDown(reason, false)
	}
}

// serve reads and writes until the connection fails or ctx ends and what was
// queued has been flushed.
func (c *conn) serve(ctx context.Context, nc net.Conn, reader *wire.Reader) error {
	done := make(chan struct{})
	c.send = newSender(nc)
	var writing sync.WaitGroup
	var writeErr error
	writing.Go(func() {
		writeErr = c.write(ctx, done)
		nc.Close() // ends the reader
	})
	readErr := c.read(reader)
	close(done)
	nc.Close() // ends a write that waits
	writing.Wait()
	if writeErr != nil && !errors.Is(writeErr, net.ErrClosed) {
		return withoutAddresses(writeErr)
	}
	return withoutAddresses(readErr)
}

// countingReader counts what the socket gives.
type countingReader struct {
	net.Conn
	c *conn
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	if n > 0 {
		r.c.reads.Add(1)
		r.c.stats.bytesIn.Add(uint64(n))
	}
	return n, err
}
