package server

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// RoundTripper returns a transport whose requests reach this server without a
// network, whatever their address, and need no key: they come from this process.
// The answer's body is streamed; a request ends with its context.
func (s *Server) RoundTripper() http.RoundTripper { return handlerTransport{s.trusted} }

type handlerTransport struct{ handler http.Handler }

// RoundTrip runs the handler in a goroutine, which ends when the handler returns;
// closing the answer's body or the end of the request's context makes it return.
func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	inner := r.Clone(r.Context())
	inner.RequestURI = r.URL.RequestURI()
	inner.RemoteAddr = "in process"
	inner.Host = r.Host
	if inner.Host == "" {
		inner.Host = r.URL.Host
	}
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	reader, writer := io.Pipe()
	w := &pipeWriter{header: http.Header{}, body: writer, started: make(chan struct{})}
	go func() {
		defer func() {
			if p := recover(); p != nil { // as net/http does: the connection breaks
				w.fail(errors.New("the handler panicked"))
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = writer.Close()
		}()
		defer func() { _ = inner.Body.Close() }()
		t.handler.ServeHTTP(w, inner)
	}()
	select {
	case <-w.started:
	case <-r.Context().Done():
		_ = reader.CloseWithError(r.Context().Err())
		return nil, r.Context().Err()
	}
	if w.err != nil {
		return nil, w.err
	}
	return &http.Response{
		Status: http.StatusText(w.code), StatusCode: w.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: reader, ContentLength: -1, Request: r,
	}, nil
}

type pipeWriter struct {
	header  http.Header
	body    *io.PipeWriter
	started chan struct{}
	once    sync.Once
	// Written before started is closed.
	code int
	sent http.Header
	err  error
}

// Header implements http.ResponseWriter.
func (w *pipeWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *pipeWriter) WriteHeader(code int) {
	w.once.Do(func() {
		w.code, w.sent = code, w.header.Clone()
		close(w.started)
	})
}

// Write implements http.ResponseWriter. It blocks until the reader has taken the
// bytes.
func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

func (w *pipeWriter) fail(err error) {
	w.once.Do(func() {
		w.err = err
		close(w.started)
	})
	_ = w.body.CloseWithError(err)
}
