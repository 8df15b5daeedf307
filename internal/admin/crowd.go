package admin

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// crowd bounds the connections of the endpoint. When there are too many, one makes room
// for the newcomer: of those without a request of an authorised client, the one that has
// been so for longest. So connections that never ask, or that ask for public files and
// do not read them, cannot keep operators out.
type crowd struct {
	limit int

	mu      sync.Mutex
	members map[net.Conn]*member
}

// member is one connection.
type member struct {
	crowd *crowd
	held  int       // requests under way that were let through
	since time.Time // without one
}

type memberKey struct{}

func newCrowd(limit int) *crowd {
	return &crowd{limit: limit, members: make(map[net.Conn]*member)}
}

// attend makes the server keep the crowd informed; handler is served by it.
func (c *crowd) attend(server *http.Server, handler http.Handler) {
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
	server.Handler = handler
}

func (c *crowd) enter(nc net.Conn) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.members) >= c.limit {
		var oldest net.Conn
		for other, m := range c.members {
			if m.held == 0 && (oldest == nil || m.since.Before(c.members[oldest].since)) {
				oldest = other
			}
		}
		if oldest == nil {
			break // everybody is being answered, and that is bounded elsewhere
		}
		delete(c.members, oldest)
		_ = oldest.Close() // its peer learns nothing else
	}
	m := &member{crowd: c, since: time.Now()}
	c.members[nc] = m
	return m
}

// hold counts the requests of a connection that were let through: while there is one,
// the connection stays.
func (c *crowd) hold(m *member, n int) {
	c.mu.Lock()
	m.held += n
	m.since = time.Now()
	c.mu.Unlock()
}
