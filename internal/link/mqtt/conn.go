package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt/barrier"
	"external-server/internal/link/mqtt/counts"
	"external-server/internal/link/mqtt/inflight"
	"external-server/internal/link/mqtt/liveness"
	"external-server/internal/link/mqtt/outbox"
	"external-server/internal/link/mqtt/pace"
	"external-server/internal/link/mqtt/reason"
	"external-server/internal/link/mqtt/socket"
	"external-server/internal/link/mqtt/terms"
	"external-server/internal/link/mqtt/topics"
	"external-server/internal/link/mqtt/wire"
)

// conn is one connection to the broker and the cars it serves.
type conn struct {
	link       *Link
	index      int
	clientID   string // of clean sessions
	log        *slog.Logger
	cars       int                     // attached ports; guarded by link.mu
	scout      bool                    // serves the watches only, see watcher
	lead       bool                    // the first of the link, see fallBack
	cancel     context.CancelCauseFunc // of run; guarded by link.mu
	stats      counts.Counts
	wake       chan struct{} // capacity 1: the writer has something to do
	settled    atomic.Bool   // see Link.Settled
	reads      atomic.Uint64 // from the socket, see liveness.Signs
	answeredAt atomic.Int64  // when it has answered something, ns since link.born; or 0

	// What this side does at the moment, see waits.
	reading, writing, flushing atomic.Bool

	// Of run.
	cleanStart bool          // the first session is a new one
	lostAt     time.Duration // on link.clock
	noRetain   bool          // the broker refuses a retained will
	noWill     bool          // or any
	clearing   bool          // see clear
	closes     int           // connections of version 5 that ended without an answer, in a row
	pace       *pace.Reader  // of the connection that there is

	terms.Terms // set by begin, with mu held

	sendMu sync.Mutex // before mu; held while packets are collected and written
	send   *sender

	mu         sync.Mutex
	ports      map[string]*port  // by incoming topic
	watches    map[string]*watch // by company
	overlaps   map[string]*topics.Overlap
	alive      bool            // CONNACK was received; packets may be queued
	woken      bool            // a token is in wake or the writer is about to look
	heard      []link.Receiver // of the reader: who got messages since the last write
	batch      bool            // the reader is in the middle of received packets and will wake the writer at their end
	served     bool            // there was a connection before this one
	closed     []time.Time     // when the broker has closed it of late, see noteClosed
	generation uint32          // number of this connection in the link
	leftovers  map[string]bool // topics that were given up
	barrier    barrier.Barrier
	rival      barrier.Rival
	greetings  outbox.Box // of the private topic
	greetingID uint16     // packet of the last one
	pings      liveness.Pings
	witness    liveness.Witness
	drop       func(error) // ends the connection; nil: there is none
	suspending bool        // what arrives is left to the next process
	stopping   bool        // the writer waits until everything is sent and acknowledged

	out     outbox.Line // what waits for the cars
	control []byte      // encoded packets other than messages, to be written first
	acks    int         // PUBACKs in control
	delayed []delayed   // in order of their times
	joining []*port     // to be subscribed
	leaving []string    // topics to be unsubscribed
	up      []*port     // the reader is to tell LinkUp, or LinkDown if the topic was refused
	notes   []func()    // to be logged as soon as no lock is held

	messages  inflight.Messages
	requests  inflight.Requests[request]
	owed      inflight.Owed[*port]
	refusedAt time.Time // when a subscription was refused or asked for again, last
}

func newConn(l *Link, index int) *conn {
	c := &conn{
		link: l, index: index, clientID: newClientID(), log: l.log,
		wake:     make(chan struct{}, 1),
		out:      outbox.Line{MaxMessages: l.opts.QueueMessages, MaxBytes: l.opts.QueueBytes},
		ports:    make(map[string]*port),
		watches:  make(map[string]*watch),
		overlaps: make(map[string]*topics.Overlap),
		Terms:    terms.Asked{Version: wire.V311, Window: l.opts.Window, KeepAlive: l.opts.KeepAlive}.Clean(),
	}
	c.scout = l.opts.Watching
	c.cleanStart = l.opts.Sessions != nil && l.opts.Sessions.CleanStart
	if s := l.opts.Sessions; s.fenced() {
		c.log = c.log.With("shard", index)
	} else if index > 0 || l.opts.Connections > 1 {
		c.log = c.log.With("connection", index)
	}
	return c
}

// stableAfter is how long a connection must have lived for the next attempt to
// come at once.
const stableAfter = 5 * time.Second

// run keeps the connection until ctx ends.
func (c *conn) run(ctx context.Context) {
	defer c.leave(ctx)
	for failures := 0; ctx.Err() == nil; failures++ {
		started := time.Now()
		err := c.mayConnect(ctx, failures > 0 || c.served)
		if err == nil {
			err = c.connectAndServe(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, link.ErrFenced) {
			c.link.fence(fmt.Errorf("shard %d: %w", c.index, err))
			return
		}
		stable := time.Since(started) > stableAfter
		c.mu.Lock()
		c.stats.Failed(err)
		c.mu.Unlock()
		c.noteEnd(time.Since(started), err)
		if stable {
			failures = 0
		}
		pause := backoff(failures, c.link.tuning.Load().RetryMax)
		c.link.reports.Down(c.log, c, err, pause, stable)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// mayConnect asks whether the shard is still to be served here.
func (c *conn) mayConnect(ctx context.Context, again bool) error {
	s := c.link.opts.Sessions
	if !again || !s.fenced() || !c.isShard() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.link.opts.ConnectTimeout)
	defer cancel()
	return s.MayConnect(ctx, c.index)
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
	nc, reader, t, err := c.negotiate(ctx)
	if err != nil {
		return reason.Explain(err, c.link.opts.ConnectTimeout)
	}
	defer nc.Close()
	// No other server can have changed the answer since: who would, has to take this connection over.
	if err := c.mayConnect(ctx, true); err != nil {
		return err
	}
	c.begin(t)
	started := time.Now()
	err = c.serve(ctx, nc, reader)
	switch {
	case ctx.Err() != nil:
		err = errStopped
		if cause := context.Cause(ctx); errors.Is(cause, errGiveWay) || errors.Is(cause, errFallBack) || errors.Is(cause, link.ErrFenced) {
			err = cause
		}
	case c.unanswered() && !c.Persistent && reason.IsClosed(err) && time.Since(started) < c.link.opts.KeepAlive:
		err = reason.ClosedAfterSubscribe{Err: err}
	default:
		c.noteClosed(err)
		err = fmt.Errorf("connection lost: %w", reason.Explain(err, c.link.opts.ConnectTimeout))
	}
	c.end(err, c.Persistent && (ctx.Err() == nil || errors.Is(context.Cause(ctx), link.ErrSuspend)))
	return err
}

var errStopped = errors.New("the link was stopped")

// leave does what is left to do when the connection is not wanted any more.
func (c *conn) leave(ctx context.Context) {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errFallBack) && !c.lead:
		c.link.gather(c)
	case errors.Is(cause, errFallBack):
		c.link.startAgain(c)
	case errors.Is(cause, errGiveWay), errors.Is(cause, link.ErrSuspend), errors.Is(cause, link.ErrFenced):
	case c.Persistent && c.Version == wire.V311:
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.link.opts.StopTimeout)
		defer cancel()
		if err := c.clear(bound); err != nil {
			c.log.Warn("the broker may keep the session of this server for ever: remove the session of its client identifier", "client_id", c.shardID(), "reason", err.Error())
		}
	}
}

func (c *conn) hasPresence() bool { return c.link.opts.Presence != "" && c.index == 0 }

// begin prepares a fresh session: nothing of an earlier one is left (DEF-20).
func (c *conn) begin(t terms.Terms) {
	c.answer()
	c.mu.Lock()
	c.alive, c.batch, c.woken, c.stopping, c.suspending = true, false, true, false, false
	c.Terms = t
	c.generation = c.link.keeping.generation.Add(1)
	c.owed.Begin(c.generation)
	c.leftovers = make(map[string]bool)
	if t.Persistent {
		c.cleanStart = false
	}
	if t.Continued {
		c.stats.Resumed.Add(1)
	}
	for _, p := range c.ports {
		p.continues, p.lost = t.Continued, false
	}
	c.messages.Clear()
	c.requests.Clear()
	c.control = c.control[:0]
	c.acks, c.pings, c.witness = 0, liveness.Pings{}, liveness.Witness{}
	if s := c.link.opts.Sessions; s.fenced() && c.isShard() {
		topic, payload := s.Announce(c.index)
		c.control = c.publish(c.control, topic, payload, true)
	}
	c.joining, c.leaving, c.up, c.notes, c.delayed = nil, nil, nil, nil, nil
	if c.hasPresence() {
		c.control = c.publish(c.control, c.link.opts.Presence, []byte("online"), c.Retain)
	}
	c.subscribeAll()
	if t.Persistent {
		c.beginBarrier()
	} else {
		c.barrier.None()
	}
	if c.requests.Restored() {
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
	c.stats.Connected()
	c.notes = append(c.notes, c.reportUp)
}

// reportUp says that the connection serves its cars: one line for all shards and the scout.
func (c *conn) reportUp() {
	of, id := 0, c.clientID
	if c.isShard() || c.scout {
		of = len(c.link.opts.Sessions.served()) + int(c.link.keeping.scouts.Load())
	}
	if c.Persistent {
		id = c.shardID()
	}
	c.link.reports.Up(c.log, c, of, id)
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
	return !c.requests.Restored()
}

// end forgets what belonged to the connection and tells the receivers.
func (c *conn) end(reason error, kept bool) {
	c.mu.Lock()
	c.alive, c.batch = false, false
	c.served = c.served || c.Persistent
	c.lostAt = c.link.clock()
	c.owed.Clear()
	var lost []link.Receiver
	for _, p := range c.ports {
		if p.up {
			lost = append(lost, p.receiver)
			p.lost = true
		}
		p.up, p.subscribed, p.refused, p.denied, p.continues = false, false, false, false, false
	}
	c.stats.LinkDown.Add(uint64(c.out.Clear())) // also of closed ports
	for _, w := range c.watches {
		w.granted, w.refused, w.denied = false, false, false
	}
	clear(c.overlaps)
	c.stats.Disconnected()
	c.mu.Unlock()
	for _, r := range lost {
		r.LinkDown(reason, kept)
	}
}

// serve reads and writes until the connection fails or ctx ends and what was
// queued has been flushed.
func (c *conn) serve(ctx context.Context, nc net.Conn, reader *wire.Reader) error {
	done := make(chan struct{})
	release := context.AfterFunc(ctx, func() { // the writer may be waiting for the broker
		if !errors.Is(context.Cause(ctx), link.ErrUnheard) {
			select {
			case <-done:
				return
			case <-time.After(endSteps * c.link.opts.StopTimeout):
			}
		}
		socket.Abort(nc)
	})
	defer release()
	var dropped atomic.Pointer[error]
	c.droppedBy(func(err error) {
		dropped.CompareAndSwap(nil, &err)
		socket.Abort(nc)
	})
	defer c.droppedBy(nil)
	c.send = &sender{Writer: socket.NewWriter(nc)}
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
	if err := dropped.Load(); err != nil {
		return *err
	}
	if writeErr != nil && !errors.Is(writeErr, net.ErrClosed) {
		return reason.WithoutAddresses(writeErr)
	}
	return reason.WithoutAddresses(readErr)
}

// endSteps are what an end in order may wait for, StopTimeout each: what was sent is acknowledged, the
// farewell is taken, and the broker closes the connection.
const endSteps = 3

func (c *conn) droppedBy(drop func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop = drop
}

// answer notes that the broker has answered something.
func (c *conn) answer() {
	if c.link.opts.Heartbeat > 0 {
		c.answeredAt.Store(int64(time.Since(c.link.born)))
	}
}

// countingReader counts what the socket gives.
type countingReader struct {
	net.Conn
	c *conn
}

func (r *countingReader) Read(b []byte) (int, error) {
	r.c.reading.Store(true)
	n, err := r.c.pace.Read(b)
	r.c.reading.Store(false)
	if n > 0 {
		r.c.reads.Add(1)
		r.c.stats.BytesIn.Add(uint64(n))
	}
	return n, err
}
