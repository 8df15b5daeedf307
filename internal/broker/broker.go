// Package broker is the MQTT broker inside the process, for installations that
// have none. It guards a library broker against what strangers on the network
// may send, and bounds what they may use.
//
// It knows nothing of cars and imports logging only.
package broker

import (
	"cmp"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"

	"external-server/internal/logging"
)

// Options of New. Only Listen and Logger are needed.
type Options struct {
	// Listen is the address, host:port; port 0 takes a free one.
	Listen string
	// TLS of the listener; nil means none.
	TLS *tls.Config
	// Users that may connect; without any, everybody may.
	Users  []User
	Logger *slog.Logger
	// MaxPacket bounds a packet in bytes; zero means 4 MiB and the header. A
	// client that sends more is disconnected.
	MaxPacket int
	// MaxClients bounds the connections; zero means 20 000.
	MaxClients int
	// MaxPending bounds the messages that wait to be encoded for one client, and
	// MaxPendingBytes what waits to be written to it; zero means 4096 messages
	// and 32 MiB. Twice as much, and 1 KiB per message counted in, may wait for its
	// acknowledgement. A client that does not keep up is disconnected.
	MaxPending, MaxPendingBytes int
	// Subscribe names topics to which the broker subscribes a client by itself when it
	// connects, by its identifier, as far as its user may use them; nil means none.
	Subscribe func(client string) []string
	// Present is told when a client with that identifier has come, and when the last
	// connection of it has ended; nil means no one is told. The calls come one at a
	// time and in order; they must not wait and not call the broker.
	Present func(client string, here bool)
	// KeepSessions keeps the sessions of clients of MQTT 5 that ask for it: what is
	// published for them while they are away waits for them. It is for a broker that outlives
	// the servers; it cannot be combined with Users. Otherwise all sessions are clean (CONN-7).
	KeepSessions bool
	// Hold lets clients wait, for at most 5 s each, until Open is called; those that were
	// announced with Own do not wait. So what a client publishes first finds its subscriber.
	Hold bool
	// ConnectTimeout bounds the time until a client has introduced itself, TLS
	// included; zero means 10 s.
	ConnectTimeout time.Duration
	// WriteTimeout bounds how long a client may leave everything unread; zero
	// means 10 s.
	WriteTimeout time.Duration
}

// User may connect to the broker.
type User struct {
	Name, Password string
	// Prefix restricts the user to topics below it; "" restricts nothing.
	Prefix string
	// Car restricts the user to one car, for example "company/car": to topics below
	// it, to this very client identifier (CONN-9), and to messages that are not
	// retained. Prefix is then not used. "" restricts nothing.
	Car string
}

// Broker is an MQTT broker. New, Start, Close; each at most once.
type Broker struct {
	opts     Options
	log      *slog.Logger
	limit    logging.Limiter
	users    atomic.Pointer[map[string]User] // by name
	server   *mqtt.Server
	listener *listener
	retained retained
	throttle throttle
	sessions sessions
	own      own
	opened   chan struct{} // closed by Open
	opening  sync.Once
	unread   atomic.Int64 // bytes of introductions that are not complete, beyond firstRead each

	mu      sync.Mutex
	clients map[string]*conn // by client identifier
	closed  bool
}

// HeaderRoom is what a packet has for its topic and properties beside the payload, in
// bytes.
const HeaderRoom = 1 << 10

// defaultPayload is the largest payload, in bytes, of a broker that is told no other.
const defaultPayload = 4 << 20

// New checks the options.
func New(opts Options) (*Broker, error) {
	if opts.Logger == nil {
		return nil, errors.New("embedded broker: a logger is needed")
	}
	if err := checkListen(opts.Listen); err != nil {
		return nil, err
	}
	if opts.KeepSessions && len(opts.Users) > 0 {
		return nil, errors.New("embedded broker: sessions are kept without users only")
	}
	b := &Broker{opts: opts, log: opts.Logger, clients: make(map[string]*conn), opened: make(chan struct{})}
	if !opts.Hold {
		b.Open()
	}
	users, err := byName(opts.Users)
	if err != nil {
		return nil, err
	}
	b.users.Store(&users)
	setDefault(&b.opts.MaxPacket, defaultPayload+HeaderRoom)
	setDefault(&b.opts.MaxClients, 20_000)
	setDefault(&b.opts.MaxPending, 4096)
	setDefault(&b.opts.MaxPendingBytes, 32<<20)
	setDefault(&b.opts.ConnectTimeout, 10*time.Second)
	setDefault(&b.opts.WriteTimeout, 10*time.Second)
	return b, nil
}

func setDefault[T ~int | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func checkListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		var n int
		if n, err = strconv.Atoi(port); err == nil && (n < 0 || n > 65535) {
			err = errors.New("the port must be a number from 0 to 65535")
		}
	}
	if err != nil {
		return fmt.Errorf("embedded_broker.listen %q: expected host:port, for example 127.0.0.1:1883: %w", address, err)
	}
	return nil
}

// Start listens and serves until Close. On error nothing is left behind.
func (b *Broker) Start() error {
	l, err := net.Listen("tcp", b.opts.Listen)
	if err != nil {
		return fmt.Errorf("embedded_broker.listen %q: %w", b.opts.Listen, explain(err))
	}
	b.listener = newListener(b, l)
	b.server = mqtt.New(&mqtt.Options{
		Logger:       slog.New(&logHandler{broker: b}),
		Capabilities: b.capabilities(),
		// The statistics topics stop the world to count memory, and the library keeps
		// them in its own table of retained messages.
		SysTopicResendInterval: int64((100 * 365 * 24 * time.Hour).Seconds()),
	})
	err = b.server.AddHook(&guard{broker: b}, nil)
	if err == nil {
		err = b.server.AddListener(b.listener)
	}
	if err == nil {
		if err = b.server.Serve(); err == nil {
			// The library counts its goroutine in that goroutine: a Close before would
			// not wait for it.
			<-b.listener.serves
		}
	}
	// The library retains its statistics once, at the start. With its table empty it
	// never reads what other clients write there.
	for topic := range b.server.Topics.Retained.GetAll() {
		b.server.Topics.Retained.Delete(topic)
	}
	close(b.listener.ready)
	if err != nil {
		return errors.Join(fmt.Errorf("embedded broker: %w", err), b.Close())
	}
	b.log.Info("embedded broker listens", "address", l.Addr().String(), "tls", b.opts.TLS != nil, "users", len(*b.users.Load()))
	return nil
}

func (b *Broker) capabilities() *mqtt.Capabilities {
	c := *mqtt.DefaultServerCapabilities
	c.MaximumPacketSize = uint32(b.opts.MaxPacket)
	c.MaximumClientWritesPending = int32(b.opts.MaxPending)
	c.MaximumSessionExpiryInterval = 0 // CONN-7: nothing is kept for an absent peer
	c.MaximumMessageExpiryInterval = int64((10 * 365 * 24 * time.Hour).Seconds())
	c.ReceiveMaximum = 65535
	c.TopicAliasMaximum = 0
	c.Compatibilities.NoInheritedPropertiesOnAck = true // a client that publishes with QoS 2 could leave them here
	return &c
}

// explain says what an operator can do about a failed listen.
func explain(err error) error {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("the address is in use: stop the other broker or choose another port: %w", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission: ports below 1024 need privileges, choose another one: %w", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("this machine does not have the address: use 127.0.0.1 for local clients or 0.0.0.0 for all: %w", err)
	case errors.As(err, &dns):
		return fmt.Errorf("the host name is unknown: use an address of this machine: %w", err)
	}
	return err
}

// Open admits all clients from now on, see Options.Hold.
func (b *Broker) Open() { b.opening.Do(func() { close(b.opened) }) }

// Addr is where the broker listens; nil before Start.
func (b *Broker) Addr() net.Addr {
	if b.listener == nil {
		return nil
	}
	return b.listener.Addr()
}

// Close waits until clients have what was published for them: 3 s at most, and 2 s after
// the last progress. Then it ends all connections, and returns when nothing of the broker
// runs any more.
func (b *Broker) Close() error {
	b.mu.Lock()
	closed := b.closed
	b.closed = true
	b.mu.Unlock()
	if closed || b.server == nil {
		return nil
	}
	b.listener.shut() // no new clients while the library ends the others
	b.drain()
	err := b.server.Close()
	b.listener.wait()
	b.sessions.close()
	b.log.Info("embedded broker stopped")
	return err
}

// allowed tells whether the name and the password belong to a user. The time it
// takes does not tell how much of a password is right.
func (b *Broker) allowed(name, password []byte) bool {
	users := *b.users.Load()
	if len(users) == 0 {
		return true
	}
	u, ok := users[string(name)]
	want := u.Password
	if !ok {
		want = string(password) + "x" // as much work as for a known user
	}
	return subtle.ConstantTimeCompare([]byte(want), password) == 1 && ok
}

// mayUse tells whether the user may publish to a topic or subscribe to a filter.
func (b *Broker) mayUse(name []byte, topic string) bool {
	u := b.user(name) // without users: no prefix
	prefix := cmp.Or(u.Car, u.Prefix)
	return prefix == "" || strings.HasPrefix(topic, strings.TrimSuffix(prefix, "/")+"/")
}
