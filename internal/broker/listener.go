package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/wind-c/comqtt/v2/mqtt/listeners"
	"github.com/wind-c/comqtt/v2/mqtt/packets"

	"external-server/internal/link/mqtt/quickack"
)

// listener accepts clients for the library's server. It bounds their number, lets the
// library see only those that have introduced themselves, survives a panic in the library's handling of one of them, and knows when the
// last one has gone.
type listener struct {
	net.Listener
	broker *Broker
	serves chan struct{} // closed when the library has begun to serve
	ready  chan struct{} // closed when the library has finished its start
	room   *waitingRoom

	mu      sync.Mutex
	conns   map[*conn]struct{}
	known   int // clients that have introduced themselves
	ended   bool
	closed  chan struct{}  // when ended
	running sync.WaitGroup // accepted clients
}

var _ listeners.Listener = (*listener)(nil)

func newListener(b *Broker, l net.Listener) *listener {
	return &listener{Listener: l, broker: b, serves: make(chan struct{}), ready: make(chan struct{}), room: newWaitingRoom(),
		conns: make(map[*conn]struct{}), closed: make(chan struct{})}
}

// Init, ID, Address and Protocol are called by the library.
func (l *listener) Init(*slog.Logger) error { return nil }

// ID implements listeners.Listener.
func (l *listener) ID() string { return "tcp" }

// Address implements listeners.Listener.
func (l *listener) Address() string { return l.Addr().String() }

// Protocol implements listeners.Listener.
func (l *listener) Protocol() string { return "tcp" }

// Serve accepts clients until the listener is closed.
func (l *listener) Serve(establish listeners.EstablishFn) {
	close(l.serves)
	<-l.ready
	for pause := time.Duration(0); ; {
		l.room.await(l.closed)
		nc, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of file descriptors, for example
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.broker.limit.Log(l.broker.log, slog.LevelWarn, "embedded broker cannot accept a connection", slog.Any("error", err))
			select {
			case <-time.After(pause):
				continue
			case <-l.closed:
				return
			}
		}
		pause = 0
		l.admit(nc, establish)
	}
}

func (l *listener) admit(nc net.Conn, establish listeners.EstablishFn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		nc.Close()
		return
	}
	c := newConn(quickack.Wrap(nc), l.broker)
	l.conns[c] = struct{}{}
	leave := l.room.enter(c)
	l.running.Go(func() {
		defer leave()
		l.serve(c, leave, establish)
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
	})
}

// serve lets the library talk to one client.
func (l *listener) serve(c *conn, known func(), establish listeners.EstablishFn) {
	b := l.broker
	defer func() {
		if p := recover(); p != nil {
			b.limit.Log(b.log, slog.LevelWarn, "embedded broker failed on a client's packet, the client is disconnected",
				slog.String("remote", c.RemoteAddr().String()), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			b.removePanicked(c)
		}
		c.closeAndWait()
		if c.kept != nil {
			b.sessions.leave(c.kept, c)
		}
		b.release(c)
	}()
	if b.opts.TLS != nil {
		if err := c.secure(); err != nil {
			b.limit.Log(b.log, slog.LevelInfo, "client of the embedded broker failed the TLS handshake",
				slog.String("remote", c.RemoteAddr().String()), slog.Any("error", err))
			return
		}
	}
	err := c.introduce()
	if err == nil && !l.welcome() {
		err = c.turnAway(false, 0x03, 0, errManyClients)
	}
	if err != nil {
		l.turnedAway(c, err)
		return
	}
	defer l.goodbye()
	known()
	if !c.await() {
		return
	}
	c.start()
	if err := establish(l.ID(), c); err != nil {
		b.limit.Log(b.log, slog.LevelInfo, "client of the embedded broker disconnected",
			slog.String("remote", c.RemoteAddr().String()), slog.Any("reason", err))
	}
}

// turnedAway says why a client was not admitted. Each reason of the broker has a text of
// its own, because the limit of the log counts texts.
func (l *listener) turnedAway(c *conn, err error) {
	level, text, reason := slog.LevelInfo, "embedded broker does not admit a client", slog.Any("reason", err)
	switch {
	case errors.Is(err, errManyClients), errors.Is(err, errGuessing), errors.Is(err, errNoRoom):
		level = slog.LevelWarn
		fallthrough
	case errors.Is(err, errNoConnect), errors.Is(err, errLongConnect), errors.Is(err, errProtocol):
		text, reason = text+": "+err.Error(), slog.Attr{}
	}
	l.broker.limit.Log(l.broker.log, level, text, slog.String("remote", c.RemoteAddr().String()), reason)
}

// welcome counts a client that has introduced itself, unless there are too many.
func (l *listener) welcome() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known >= l.broker.opts.MaxClients {
		return false
	}
	l.known++
	return true
}

func (l *listener) goodbye() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known--
}

// secure makes the handshake of TLS.
func (c *conn) secure() error {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.broker.opts.ConnectTimeout)
	defer cancel()
	return t.HandshakeContext(ctx)
}

// shut refuses new clients and frees the port.
func (l *listener) shut() {
	l.mu.Lock()
	if !l.ended {
		l.ended = true
		close(l.closed)
	}
	l.mu.Unlock()
	l.Listener.Close()
}

// Close is called by the library when the server ends. The library's own way to its
// clients takes a lock twice and never returns when one of them leaves in between.
func (l *listener) Close(listeners.CloseFn) {
	l.shut()
	for _, cl := range l.broker.server.Clients.GetAll() {
		if c, ok := cl.Net.Conn.(*conn); ok {
			c.prepareToLinger()
		}
		if !cl.Net.Inline && !cl.Closed() {
			_ = l.broker.server.DisconnectClient(cl, packets.ErrServerShuttingDown) // it returns that as its error
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns { // also those that had not introduced themselves
		c.Close()
	}
}

// wait returns when the last client has gone.
func (l *listener) wait() { l.running.Wait() }
