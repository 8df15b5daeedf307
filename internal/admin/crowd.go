package admin

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// crowd bounds the connections of the endpoint. When there are too many, one without
// a request under way makes room for the newcomer, the one that has been so for
// longest: whoever opens connections and never asks keeps nobody from asking.
type crowd struct {
	limit int

	mu      sync.Mutex
	members map[net.Conn]*member
}

// member is one connection.
type member struct {
	requests int       // under way
	since    time.Time // without one
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
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m, ok := r.Context().Value(memberKey{}).(*member); ok {
			c.count(m, 1)
			defer c.count(m, -1)
		}
		handler.ServeHTTP(w, r)
	})
}

func (c *crowd) enter(nc net.Conn) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.members) >= c.limit {
		var oldest net.Conn
		for other, m := range c.members {
			if m.requests == 0 && (oldest == nil || m.since.Before(c.members[oldest].since)) {
				oldest = other
			}
		}
		if oldest == nil {
			break // everybody is being answered, and that is bounded elsewhere
		}
		delete(c.members, oldest)
		_ = oldest.Close() // its peer learns nothing else
	}
	m := &member{since: time.Now()}
	c.members[nc] = m
	return m
}

func (c *crowd) count(m *member, n int) {
	c.mu.Lock()
	m.requests += n
	m.since = time.Now()
	c.mu.Unlock()
}
