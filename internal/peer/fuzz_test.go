package peer

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/config"
)

// Whatever a stranger sends, no handler is reached, and the server answers the next one.
func FuzzStranger(f *testing.F) {
	var reached atomic.Int64
	address, _ := start(f, Options{Token: config.NewSecret(secret)}, func(s *Server) {
		s.Handle("/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	})
	f.Add([]byte("GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("POST /v1/shards/1 HTTP/1.1\r\nHost: x\r\nX-Fleet-Hop: 1\r\nAuthorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x03\x01\x05\x00\x00\x00\x01\x82\x86\x84"))
	f.Add([]byte{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, bytes []byte) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(bytes) // it may have been refused already
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		if reached.Load() != 0 {
			t.Fatalf("%q reached a handler", bytes)
		}
	})
}

// A request reaches a handler only with the token and one hop; its answer is never 200
// otherwise.
func FuzzRequest(f *testing.F) {
	s, err := Listen(f.Context(), "127.0.0.1:0", options(f, Options{Token: config.NewSecret(secret)}))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	s.Handle("GET /v1/x/{y}", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	f.Add("GET", "/v1/x/1", "Bearer "+secret, "1", "a", "127.0.0.1:1")
	f.Add("GET", "/v1/../v1/x/1", "bearer "+secret, "2", strings.Repeat("a", 300), "8.8.8.8:1")
	f.Add("CONNECT", "*", "Bearer  "+secret, "", "", "[fe80::1]:2")
	f.Fuzz(func(t *testing.T, method, path, authorization, hops, from, remote string) {
		r := &http.Request{Method: method, Header: http.Header{}, RemoteAddr: remote, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody}
		r = r.WithContext(t.Context())
		u, err := r.URL.Parse("http://x/")
		if err != nil {
			t.Fatal(err)
		}
		u.Path, r.URL = path, u
		r.Header.Set("Authorization", authorization)
		r.Header.Set(hopHeader, hops)
		r.Header.Set(replicaHeader, from)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		_, token, _ := strings.Cut(authorization, " ")
		if w.Code == http.StatusOK && (token != secret || hops != "1" && hops != "+1" && strings.TrimLeft(hops, "+0") != "1") {
			t.Errorf("200 for %q, %q hops", authorization, hops)
		}
	})
}
