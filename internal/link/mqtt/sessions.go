package mqtt

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/barrier"
	"external-server/internal/link/mqtt/reason"
	"external-server/internal/link/mqtt/terms"
	"external-server/internal/link/mqtt/wire"
)

// Sessions makes the broker keep what is under way while no process, or another one,
// serves the cars. Each car belongs to one of a fixed number of connections, the shards,
// whose client identifiers stay the same.
//
// Where the broker cannot do so (it speaks only MQTT 3.1.1, or keeps no session) the
// connections begin clean sessions, as without Sessions. All cars that shall continue
// have to be attached before Run: what the broker holds for others is given up.
type Sessions struct {
	// ClientID is what the client identifiers begin with: connection n has
	// ClientID-n.
	ClientID string
	// Shards is the number of connections, 1 to 64. See Shard.
	Shards int
	// Expiry is for how long the broker keeps a session without connection, whole
	// seconds; zero means 120 s.
	Expiry time.Duration
	// Explicit allows sessions also with MQTT 3.1.1, where a broker may keep them for
	// ever: ClientID was chosen by the operator, who can remove them.
	Explicit bool
	// CleanStart makes the first connection of each shard begin a new session: what the
	// broker holds is of no use any more.
	CleanStart bool
	// Flush is called before each write that may carry answers or acknowledgements of the
	// shard, on a goroutine of the link; what was decided has to be on record when it
	// returns. An error is counted only. Nil: there is no record.
	Flush func(shard int) error
	// FlushWaits says that Flush waits for the disk: it is then never called on the
	// goroutine that receives.
	FlushWaits bool
	// OwnBroker says that the broker is this process: that it keeps nothing is no surprise.
	OwnBroker bool
	// Self describes this process to people, for example "host, process N, since T".
	Self string

	// Only lists the shards that this link serves, nil: all. Cars of others cannot be attached.
	Only []int

	// What follows fences the shards: several servers may serve them, one at a time each, and
	// the broker decides which. Announce and MayConnect need each other. Then a broker that
	// does not keep the sessions in MQTT 5 is an error, and no take-over makes the link
	// give way but MayConnect.

	// Announce returns what each connection of the shard publishes before anything else,
	// retained with QoS 1: the epoch of its owner. It is called once for each connection; what
	// Records has emitted for the one before may not have reached the broker.
	Announce func(shard int) (topic string, payload []byte)
	// MayConnect tells whether this link still is the one to serve the shard. It is asked before each
	// attempt to connect again, and once more as soon as the broker has accepted a connection, before
	// anything is read or sent over it: while the shard is connected here, no other server can change the
	// answer. An error that is link.ErrFenced ends Run of the whole link with it, silently: so
	// give each shard a link of its own. After another error the connection is tried again later.
	MayConnect func(ctx context.Context, shard int) error
	// Records is called before each write, after Flush: what it emits is written in front of the
	// packets, retained with QoS 0. An empty payload removes a message. It must be cheap when there is nothing; emit
	// keeps nothing. What the broker cannot take is left out and reported. Nil: nothing.
	Records func(shard int, emit func(topic string, payload []byte))
}

const (
	defaultExpiry = 120 * time.Second
	// keepSession is for how long a connection may have been lost for its session to be
	// continued: gateways give up after 30 s (GW-2, RES-5).
	keepSession = 25 * time.Second
)

func (s *Sessions) complete() error {
	switch {
	case s.ClientID == "" || len(s.ClientID) > 200 || strings.ContainsAny(s.ClientID, "+#/\x00"):
		return fmt.Errorf("mqtt: client identifier %q: expected 1 to 200 bytes without + # /", s.ClientID)
	case s.Shards < 1 || s.Shards > 64:
		return fmt.Errorf("mqtt: %d shards: expected 1 to 64", s.Shards)
	case s.Expiry < 0 || s.Expiry%time.Second != 0 || s.Expiry > 24*time.Hour:
		return fmt.Errorf("mqtt: session expiry %v: expected whole seconds, at most 24 h", s.Expiry)
	}
	seen := make(map[int]bool)
	for _, n := range s.Only {
		if n < 0 || n >= s.Shards || seen[n] {
			return fmt.Errorf("mqtt: shard %d cannot be one of those that are served: expected different ones from 0 to %d", n, s.Shards-1)
		}
		seen[n] = true
	}
	switch {
	case s.Only != nil && len(s.Only) == 0:
		return errors.New("mqtt: no shard is to be served")
	case (s.Announce == nil) != (s.MayConnect == nil):
		return errors.New("mqtt: Announce and MayConnect need each other")
	}
	setDefault(&s.Expiry, defaultExpiry)
	s.Self = strings.ToValidUTF8(s.Self[:min(len(s.Self), barrier.MaxSelf)], "?")
	return nil
}

// Shard is the number of the connection that serves a car, of n. It depends on nothing
// else, so that a further car moves none.
func Shard(car fleet.CarID, n int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(car.String())) // never fails
	return int(h.Sum32() % uint32(n))
}

// privatePrefix begins the topics that the connections have for themselves; see barrier.
const privatePrefix = fleet.TopicsOfServer

// keeping is what the connections of a link with Sessions share.
type keeping struct {
	token      string // tells this process from others
	generation atomic.Uint32
	declined   atomic.Pointer[string] // why sessions are not kept; see fallBack
	dead       atomic.Pointer[error]  // why the link serves no more; see giveWay
	quickEnds  atomic.Int32           // connections that the broker ended at once
	scouts     atomic.Int32           // connections of the watches: 0 or 1
	said       said
}

// said keeps what is said once from being said for each connection.
type said struct{ clean, noBarrier, qos atomic.Bool }

func newKeeping() *keeping { return &keeping{token: rand.Text()[:12]} }

var (
	errFallBack = errors.New("the sessions are given up, all cars move to one connection")
	errGiveWay  = errors.New("another server has taken over")
)

// fenced tells whether several servers may serve the shards.
func (s *Sessions) fenced() bool { return s != nil && s.MayConnect != nil }

// served returns the shards that this link serves, none without sessions.
func (s *Sessions) served() []int {
	if s == nil {
		return nil
	}
	if s.Only != nil {
		return s.Only
	}
	all := make([]int, s.Shards)
	for i := range all {
		all[i] = i
	}
	return all
}

// fallBack gives the sessions up for as long as the link runs: all cars move to one
// connection with a clean session. With a fence there is no such way.
func (l *Link) fallBack(why string) {
	if l.opts.Sessions.fenced() {
		if !l.keeping.said.clean.Swap(true) {
			l.log.Error("this broker cannot serve several servers: "+why, "user", l.tuning.Load().Username)
		}
		return
	}
	if !l.keeping.declined.CompareAndSwap(nil, &why) {
		return
	}
	l.log.Warn("sessions cannot outlive this server, all cars are served over one connection: "+why,
		"user", l.tuning.Load().Username)
	l.cancelAll(errFallBack)
}

// giveWay stops serving for good: another server with the same client identifiers
// takes the connections over again and again (RES-16).
func (l *Link) giveWay(rival string) {
	err := fmt.Errorf("%w: two servers use the client identifiers %s-0 to %s-%d at this broker. "+
		"This one (%s) stops serving, the other (%s) goes on: is the state directory a copy? Give each server a directory and a client_id of its own, then restart this one",
		errGiveWay, l.opts.Sessions.ClientID, l.opts.Sessions.ClientID, l.opts.Sessions.Shards-1, l.opts.Sessions.Self, rival)
	if !l.keeping.dead.CompareAndSwap(nil, &err) {
		return
	}
	l.log.Error(err.Error())
	l.cancelAll(errGiveWay)
}

func (l *Link) cancelAll(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		if c.cancel != nil {
			c.cancel(cause)
		}
	}
}

// startAgain runs the first connection anew, as a clean session.
func (l *Link) startAgain(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start(c)
}

// gather moves the cars and watches of a connection that has ended to the first one.
func (l *Link) gather(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.conns[0]
	if c == to {
		return
	}
	c.mu.Lock()
	var ports []*port
	for _, p := range c.ports {
		ports = append(ports, p)
		p.conn.Store(to)
	}
	clear(c.ports)
	watches := c.watches
	c.watches = make(map[string]*watch)
	c.mu.Unlock()
	to.cars += c.cars
	c.cars = 0
	for _, p := range ports {
		to.attach(p)
	}
	for _, w := range watches {
		w.conn = to
		to.addWatch(w)
	}
}

// noteEnd looks for a broker that gives all connections of a user one client
// identifier: each connection ends another one.
func (c *conn) noteEnd(lived time.Duration, err error) {
	k, s := c.link.keeping, c.link.opts.Sessions
	switch {
	case s == nil || !c.Persistent || s.Shards < 2:
	case lived >= stableAfter:
		k.quickEnds.Store(0)
	case lived < 2*time.Second && (reason.IsClosed(err) || errors.As(err, new(reason.Disconnected))):
		if int(k.quickEnds.Add(1)) > 4+3*s.Shards {
			c.link.fallBack(oneIdentifier)
		}
	}
}

// A broker that closes a connection so often within that time does so for a reason.
const (
	manyCloses  = 5
	closeWithin = time.Minute
)

// noteClosed looks for a client that uses the identifier of this connection: each connection
// of the one ends that of the other, and no broker has to say so.
func (c *conn) noteClosed(err error) {
	if !c.Persistent || !reason.IsClosed(err) && !errors.As(err, new(reason.Disconnected)) {
		return // other identifiers are of chance
	}
	now := time.Now()
	c.closed = append(slices.DeleteFunc(c.closed, func(at time.Time) bool { return now.Sub(at) > closeWithin }), now)
	if len(c.closed) < manyCloses {
		return
	}
	c.closed = c.closed[:0]
	c.link.reports.Closed(c.log, c.shardID(), manyCloses, closeWithin)
}

const oneIdentifier = "the broker seems to make the user name the client identifier, so that each connection ends the others; " +
	"switch this off for the user of this server (in mosquitto: use_username_as_clientid)"

// decline says once that the broker keeps no sessions.
func (c *conn) decline(why string) {
	switch {
	case c.link.opts.Sessions.fenced(): // the connection is refused, see handshake
	case c.link.keeping.said.clean.Swap(true):
	case c.link.opts.Sessions.OwnBroker:
		c.log.Info("the embedded broker ends with this server: after an orderly restart the gateways reach it again and their sessions go on")
	default:
		c.log.Warn("a restart of this server will cost the cars their sessions: " + why)
	}
}

// ask returns what a connection asks for.
func (c *conn) ask(version wire.Version) terms.Asked {
	opts, tuning := &c.link.opts, c.link.tuning.Load()
	out := terms.Asked{
		Version: version, ClientID: c.clientID, Username: tuning.Username, Password: tuning.Password,
		KeepAlive: opts.KeepAlive, Window: opts.Window,
	}
	switch {
	case c.clearing:
		out.ClientID = c.shardID()
		return out
	case c.keeps(version):
		out.ClientID, out.Keep = c.shardID(), true
		out.Fresh, out.Expiry = c.beginsAnew(), opts.Sessions.Expiry
	}
	out.Shard = c.isShard()
	if c.hasPresence() && !c.noWill {
		out.Will = &wire.Will{Topic: opts.Presence, Payload: []byte("offline"), Retain: !c.noRetain}
	}
	return out
}

// agreed says what is missing in the terms.
func (c *conn) agreed(t terms.Terms) {
	if t.Misnamed {
		c.link.fallBack(t.Unfit)
	}
	if t.Declined != "" {
		c.decline(t.Declined)
	}
	if t.QoS == 0 && !c.link.keeping.said.qos.Swap(true) {
		c.log.Warn("the broker allows only QoS 0; messages may be lost")
	}
}

func (c *conn) shardID() string {
	return fmt.Sprintf("%s-%d", c.link.opts.Sessions.ClientID, c.index)
}

// isShard tells whether the connection asks the broker to keep its session.
func (c *conn) isShard() bool {
	return c.link.opts.Sessions != nil && !c.scout && c.link.keeping.declined.Load() == nil
}

func (c *conn) keeps(version wire.Version) bool {
	return c.isShard() && (version == wire.V5 || c.link.opts.Sessions.Explicit)
}

// beginsAnew tells whether what the broker holds is of no use any more.
func (c *conn) beginsAnew() bool {
	return c.cleanStart || c.link.clock()-c.lostAt > keepSession
}
