// Package crowd bounds the connections of an HTTP server so that strangers who hold
// connections do not keep out those who may ask, and lets requests take turns so that
// strangers who ask all the time delay nothing else in the process.
package crowd

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"
)

// Crowd bounds the connections of one server. When there are too many, one makes room
// for the newcomer: of those without a request that was let through, the one that has
// been so for longest, and of these rather one that never had such a request. So
// connections that never ask, or that ask for public files and do not read them, cannot
// keep others out.
type Crowd struct {
	limit int

	mu      sync.Mutex
	members map[net.Conn]*member
}

// member is one connection.
type member struct {
	crowd *Crowd
	held  int       // requests under way that were let through
	known bool      // there has been one
	since time.Time // without one
}

// before tells whether m makes room rather than the other.
func (m *member) before(other *member) bool {
	if m.known != other.known {
		return !m.known
	}
	return m.since.Before(other.since)
}

type memberKey struct{}

// New makes a Crowd of up to limit connections; more only while all of them have a
// request that was let through.
func New(limit int) *Crowd {
	return &Crowd{limit: limit, members: make(map[net.Conn]*member)}
}

// Attend makes the server, which does not serve yet, tell about its connections, and
// serve the handler.
func (c *Crowd) Attend(server *http.Server, handler http.Handler) {
	server.ConnState = func(nc net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			c.mu.Lock()
			delete(c.members, nc)
			c.mu.Unlock()
		}
	}
	server.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		return context.WithValue(ctx, memberKey{}, c.enter(nc)) // called once, first of all
	}
	server.Handler = Turns(handler)
}

// Turns makes each request wait until everything else that is ready has had its turn. A
// client that sends one request after the other without waiting keeps its goroutine
// ready all the time. With hundreds of such clients, a message of a car would wait at
// each step of its way until every one of them has used up its slice of 10 ms. So a
// client has one request of a slice.
func Turns(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runtime.Gosched()
		handler.ServeHTTP(w, r)
	})
}

func (c *Crowd) enter(nc net.Conn) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.members) >= c.limit {
		var first net.Conn
		for other, m := range c.members {
			if m.held == 0 && (first == nil || m.before(c.members[first])) {
				first = other
			}
		}
		if first == nil {
			break // everybody is being answered, and that is bounded elsewhere
		}
		delete(c.members, first)
		_ = first.Close() // its peer learns nothing else
	}
	m := &member{crowd: c, since: time.Now()}
	c.members[nc] = m
	return m
}

// Hold notes that a request, whose context it is given, was let through: its connection
// stays until release is called. For a context of no Crowd it does nothing.
func Hold(ctx context.Context) (release func()) {
	m, ok := ctx.Value(memberKey{}).(*member)
	if !ok {
		return func() {}
	}
	m.add(1)
	return func() { m.add(-1) }
}

func (m *member) add(n int) {
	m.crowd.mu.Lock()
	m.held += n
	m.known = true
	m.since = time.Now()
	m.crowd.mu.Unlock()
}
