package server

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/httpapi/crowd"
)

const (
	// helloTime is how long a stop waits for the first requests of clients that have just connected.
	helloTime = 500 * time.Millisecond
	// goodbyeTime is for how long a replica that stops closes connections with their next answers, before it closes
	// those that are idle. Clients that use one often are answered meanwhile; they go to another replica.
	goodbyeTime = 250 * time.Millisecond
)

// visitors are the connections of a server that ends without dropping a request. net/http closes a connection
// without an answer when it reads a request after Shutdown was called, and when a request is on its way
// over a connection that it takes to be idle.
type visitors struct {
	leaving atomic.Bool // connections are closed with their next answer

	mu      sync.Mutex
	heard   map[net.Conn]bool // of each connection, whether the handler has got a request
	silent  int               // how many it has got none of
	changed chan struct{}     // closed while leaving, when there are fewer
}

type visitorKey struct{}

// attend makes the server, which does not serve yet, tell of its connections, and serve the handler.
func (v *visitors) attend(server *http.Server, handler http.Handler) {
	v.heard, v.changed = make(map[net.Conn]bool), make(chan struct{})
	server.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.heard[nc] = false
		v.silent++
		return context.WithValue(ctx, visitorKey{}, nc)
	}
	server.ConnState = func(nc net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			v.hear(nc)
			v.mu.Lock()
			defer v.mu.Unlock()
			delete(v.heard, nc)
			v.tell()
		}
	}
	handler = crowd.Turns(handler)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if nc, ok := r.Context().Value(visitorKey{}).(net.Conn); ok {
			v.hear(nc)
		}
		if v.leaving.Load() && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// hear notes that the handler has got a request of the connection, or never will.
func (v *visitors) hear(nc net.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if heard, ok := v.heard[nc]; ok && !heard {
		v.heard[nc] = true
		v.silent--
		v.tell()
	}
}

// tell lets wait look again; v.mu is held.
func (v *visitors) tell() {
	if v.leaving.Load() {
		close(v.changed)
		v.changed = make(chan struct{})
	}
}

// dismiss closes the connections that nothing was asked over.
func (v *visitors) dismiss() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for nc, heard := range v.heard {
		if !heard {
			_ = nc.Close() // its peer learns nothing else
		}
	}
}

// wait returns when it is enough, or after the limit. open is the number of connections, silent how many of them
// have not asked for anything yet. Call it when leaving is set and no more connections come.
func (v *visitors) wait(limit time.Duration, enough func(open, silent int) bool) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		v.mu.Lock()
		done, changed := enough(len(v.heard), v.silent), v.changed
		v.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			return
		}
	}
}
