package crowd

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"external-server/internal/support/testwait"
)

// Connections that never ask make room for those that do, the oldest first; one whose
// request is under way stays.
func TestConnectionsWithoutRequestsMakeRoom(t *testing.T) {
	const limit = 8
	asked, answer := make(chan struct{}), make(chan struct{})
	server := httptest.NewUnstartedServer(nil)
	New(limit).Attend(server.Config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			defer Hold(r.Context())()
			close(asked)
			<-answer
		}
	}))
	// What httptest itself wants to know of connections, it does without.
	go func() { _ = server.Config.Serve(server.Listener) }()
	defer server.Config.Close()
	address := server.Listener.Addr().String()
	dial := func(say string) net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(testwait.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, say); err != nil {
			t.Fatal(err)
		}
		return c
	}
	slow := dial("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	<-asked
	var idle []net.Conn
	for range 3 * limit {
		idle = append(idle, dial("GET / HTTP/1.1\r\nHost: x\r\nX-Never-Ends: "))
	}
	client := &http.Client{Timeout: testwait.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + "/")
	if err != nil {
		t.Fatalf("nobody is served beside connections that never ask: %v", err)
	}
	response.Body.Close()
	for i, c := range idle[:2*limit] { // the server has let them go
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("connection %d got something", i)
		} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("connection %d is still open", i)
		}
	}
	close(answer)
	if n, err := slow.Read(make([]byte, 12)); err != nil || n == 0 {
		t.Errorf("the request that was under way is not answered: %v", err)
	}
}
