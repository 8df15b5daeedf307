package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// maxHeld is how many connections without a request longPoller keeps.
const maxHeld = idleConnections

// longPoller makes requests that are held by the server over HTTP/1.1 without
// TLS, each on a connection of its own. While one waits it costs its caller's
// goroutine and the connection: http.Transport adds two goroutines and two
// buffers per connection, which with thousands of cars is most of the memory.
// Requests have no body. It is an http.RoundTripper.
type longPoller struct {
	address string
	limit   int64 // bytes of an answer

	mu     sync.Mutex
	closed bool
	idle   []net.Conn
}

// newLongPoller returns nil when the requests to the URL need something else: TLS
// or a proxy.
func newLongPoller(u *url.URL, limit int64) *longPoller {
	if u.Scheme != "http" {
		return nil
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); proxy != nil || err != nil {
		return nil
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return &longPoller{address: net.JoinHostPort(u.Hostname(), port), limit: limit}
}

var errUnanswered = errors.New("the connection was closed before the answer began")

// RoundTrip makes a request. A kept connection that the server has closed
// meanwhile is replaced, as the requests change nothing in the API.
func (l *longPoller) RoundTrip(request *http.Request) (*http.Response, error) {
	for {
		connection, kept, err := l.connect(request.Context())
		if err != nil {
			return nil, err
		}
		response, err := l.use(connection, request)
		if err == nil {
			return response, nil
		}
		_ = connection.Close() // its fault is known
		if ctxErr := request.Context().Err(); ctxErr != nil {
			return nil, ctxErr
		}
		if !kept || !errors.Is(err, errUnanswered) {
			return nil, err
		}
	}
}

func (l *longPoller) connect(ctx context.Context) (_ net.Conn, kept bool, err error) {
	l.mu.Lock()
	if n := len(l.idle); n > 0 {
		connection := l.idle[n-1]
		l.idle[n-1] = nil
		l.idle = l.idle[:n-1]
		l.mu.Unlock()
		return connection, true, nil
	}
	l.mu.Unlock()
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", l.address)
	return connection, false, err
}

// use makes the request on the connection and keeps the connection if it can be
// used again.
func (l *longPoller) use(connection net.Conn, request *http.Request) (*http.Response, error) {
	stop := context.AfterFunc(request.Context(), func() { _ = connection.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := ask(connection, request); err != nil {
		return nil, err
	}
	var first [1]byte
	if _, err := connection.Read(first[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnanswered, err)
	}
	response, reusable, err := l.answer(connection, first[0], request)
	if err == nil && reusable && stop() {
		l.keep(connection)
	} else if err == nil {
		_ = connection.Close() // the answer is complete
	}
	return response, err
}

// ask is a function of its own so that its part of the stack is free while the
// answer is waited for.
func ask(connection net.Conn, request *http.Request) error {
	var text bytes.Buffer
	if err := request.Write(&text); err != nil {
		return err
	}
	if _, err := connection.Write(text.Bytes()); err != nil {
		return fmt.Errorf("%w: %w", errUnanswered, err)
	}
	return nil
}

// answer reads the rest of an answer.
func (l *longPoller) answer(connection net.Conn, first byte, request *http.Request) (_ *http.Response, reusable bool, err error) {
	bounded := &io.LimitedReader{R: connection, N: l.limit + 64<<10} // the header beside the body
	reader := bufio.NewReader(io.MultiReader(bytes.NewReader([]byte{first}), bounded))
	response, err := http.ReadResponse(reader, request)
	for err == nil && response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
		response, err = http.ReadResponse(reader, request)
	}
	if err != nil {
		return nil, false, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, l.limit+1))
	if err != nil {
		return nil, false, err
	}
	_ = response.Body.Close() // read as far as it is wanted
	reusable = !response.Close && int64(len(body)) <= l.limit && reader.Buffered() == 0
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, reusable, nil
}

func (l *longPoller) keep(connection net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.idle) >= maxHeld {
		_ = connection.Close() // nothing is under way
		return
	}
	l.idle = append(l.idle, connection)
}

// close closes the connections that are not in use; the others follow their
// requests.
func (l *longPoller) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, connection := range l.idle {
		_ = connection.Close() // nothing is under way
	}
	l.idle = nil
}
