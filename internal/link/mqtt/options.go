package mqtt

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"external-server/internal/link/mqtt/inflight"
	"external-server/internal/link/mqtt/wire"
)

// Options of New. Only Address and Logger are needed.
type Options struct {
	// Address of the broker, host:port.
	Address string
	// Username and Password; without user name no password is sent.
	Username, Password string
	// TLS returns the settings for the next connection and is asked before each
	// one, so that certificates may be replaced while the server runs; an error
	// is the reason why there is no connection. An empty ServerName means the
	// host of Address. A nil function, and a nil result, mean no TLS.
	TLS    func() (*tls.Config, error)
	Logger *slog.Logger
	// Dialed is told the local address of every connection to the broker before
	// anything is sent over it; nil: it is not called.
	Dialed func(local net.Addr)
	// RetryMax is the longest pause between two attempts to reach the broker
	// (REC-5); zero means 5 s. The first attempts come sooner.
	RetryMax time.Duration
	// Connections over which the cars are spread; zero chooses: one per 1000
	// cars, at most 8. A broker bounds what it queues per connection.
	Connections int
	// KeepAlive of the connection, whole seconds; zero means 15 s (CONN-6). A
	// broker that does not answer is noticed within that time.
	KeepAlive time.Duration
	// Heartbeat is how often the broker is asked for an answer while it gives none to anything else, so
	// that link.ConnectionState.Answered tells for how long it has been out of reach, in one
	// direction or both. Such a connection is lost after KeepAlive also when messages
	// come. Zero: it is asked within KeepAlive, and any message counts.
	Heartbeat time.Duration
	// ConnectTimeout bounds the way to an accepted connection: TCP, TLS and
	// CONNACK; zero means 5 s (CONN-22).
	ConnectTimeout time.Duration
	// AckTimeout ends a connection on which the broker acknowledges nothing
	// although something waits for it; zero means 30 s.
	AckTimeout time.Duration
	// QueueMessages and QueueBytes bound what waits to be written per car; zero
	// means 1000 messages and 16 MiB (DEF-19).
	QueueMessages, QueueBytes int
	// Window bounds the messages of one connection that wait for the broker's
	// acknowledgement; zero means 4096.
	Window int
	// MaxPayload bounds the payload of a message in bytes, both ways; zero means
	// 4 MiB. A longer message is skipped and counted.
	MaxPayload int
	// StopTimeout bounds flushing and waiting for acknowledgements when Run
	// ends; zero means 1 s.
	StopTimeout time.Duration
	// Sessions makes sessions outlive processes; nil: every connection is a clean
	// session, and the link acknowledges what it delivers. With Sessions the number of
	// Connections is not used.
	Sessions *Sessions
	// Watching says that the link only watches: it subscribes with QoS 0, because
	// acknowledgements beside the messages themselves would cost too much.
	Watching bool
	// Presence is a topic that says whether this server is there: "online" or
	// "offline", retained, the latter also as last will. Empty: none.
	Presence string
}

const (
	maxConnections    = 8
	carsPerConnection = 1000
)

func (o *Options) complete() error {
	if o.Logger == nil {
		return errors.New("mqtt: a logger is needed")
	}
	if _, port, err := net.SplitHostPort(o.Address); err != nil {
		return fmt.Errorf("mqtt: broker address %q: expected host:port: %w", o.Address, err)
	} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("mqtt: broker address %q: the port must be a number from 1 to 65535", o.Address)
	}
	if len(o.Presence) > wire.MaxString {
		return fmt.Errorf("mqtt: the presence topic has %d bytes, MQTT allows %d", len(o.Presence), wire.MaxString)
	}
	if strings.ContainsAny(o.Presence, "+#\x00") {
		return fmt.Errorf("mqtt: presence topic %q must not contain wildcards", o.Presence)
	}
	if o.Connections < 0 || o.Connections > 64 {
		return fmt.Errorf("mqtt: %d connections: expected 0 (choose) to 64", o.Connections)
	}
	if o.KeepAlive%time.Second != 0 || o.KeepAlive < 0 || o.KeepAlive > 30*time.Second { // REC-1
		return fmt.Errorf("mqtt: keepalive %v: expected whole seconds, at most 30", o.KeepAlive)
	}
	if err := o.tuning().complete(); err != nil {
		return err
	}
	if o.Sessions != nil {
		s := *o.Sessions
		if err := s.complete(); err != nil {
			return err
		}
		o.Sessions, o.Connections = &s, s.Shards
	}
	setDefault(&o.KeepAlive, 15*time.Second)
	setDefault(&o.ConnectTimeout, 5*time.Second)
	setDefault(&o.AckTimeout, 30*time.Second)
	setDefault(&o.StopTimeout, time.Second)
	setDefault(&o.QueueMessages, 1000)
	setDefault(&o.QueueBytes, 16<<20)
	setDefault(&o.Window, 4096)
	o.Window = min(o.Window, inflight.MaxMessages)
	return nil
}

func setDefault[T ~int | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// newClientID returns 20 random characters (CONN-8); 23 is the most that every
// broker must accept. It stays the same for all attempts of one connection: the
// broker then ends what it still believes to be connected.
func newClientID() string { return "es" + rand.Text()[:18] }
