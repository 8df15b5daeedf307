package admin_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// Strangers that ask for what everybody gets, and never read it, keep neither probes nor
// those with a token from being answered.
func TestStrangersBlockNothing(t *testing.T) {
	r := newRig(t, func(s settings) {
		s["admin"] = settings{"listen": "127.0.0.1:0", "tokens": tokens("eve:read:read-secret")}
	}, "car1")
	address := strings.TrimPrefix(r.base, "http://")
	var writers sync.WaitGroup
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
		writers.Wait()
	}()
	for i := range 520 { // more than there may be connections
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		path := [...]string{"/car.js", "/api/v1/cars", "/mapview.js"}[i%3]
		writers.Go(func() {
			one := strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: "+address+"\r\n\r\n", 100)
			for range 2 {
				if _, err := c.Write([]byte(one)); err != nil {
					return // the server has let it go
				}
			}
		})
	}
	client := &http.Client{Timeout: testwait.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 10 {
		for path, token := range map[string]string{"/healthz": "", "/readyz": "Bearer read-secret", "/api/v1/cars": "Bearer read-secret"} {
			q, err := http.NewRequest(http.MethodGet, r.base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if token != "" {
				q.Header.Set("Authorization", token)
			}
			a, err := client.Do(q)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			text, err := io.ReadAll(a.Body)
			a.Body.Close()
			if a.StatusCode != http.StatusOK || err != nil {
				t.Fatalf("%s: %s %v\n%s", path, a.Status, err, text)
			}
		}
	}
}

// Strangers that ask all the time delay no car: while the broker answers a client, each of
// them is answered a few times only, not as often as it can be in 10 ms each time that
// a part of the server gives way to them.
func TestStrangersDelayNoCar(t *testing.T) {
	testneed.Time(t)
	r := newRig(t, func(s settings) {
		s["admin"] = settings{"listen": "127.0.0.1:0", "tokens": tokens("eve:read:read-secret")}
	}, "car1")
	address := strings.TrimPrefix(r.base, "http://")
	request := "GET /api/v1/cars HTTP/1.1\r\nHost: " + address + "\r\n\r\n"
	const strangers = 150
	var received atomic.Int64 // bytes
	var running sync.WaitGroup
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
		running.Wait()
	}()
	for range strangers {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		running.Go(func() {
			for many := []byte(strings.Repeat(request, 100)); ; {
				if _, err := c.Write(many); err != nil {
					return // the end of the test
				}
			}
		})
		running.Go(func() {
			for b := make([]byte, 64<<10); ; {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				received.Add(int64(n))
			}
		})
	}
	testwait.Until(t, "the strangers are answered", func() bool { return received.Load() > 1<<20 })
	car, err := brokertest.Dial(brokertest.PeerOptions{Address: r.app.BrokerAddr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer car.Close()
	if err := car.Subscribe(1, "acme/car2/external_server"); err != nil {
		t.Fatal(err)
	}
	const exchanges = 5
	before := received.Load()
	for range exchanges {
		if err := car.Publish("acme/car2/external_server", []byte("x"), false); err != nil {
			t.Fatal(err)
		}
		if _, err := car.Receive(testwait.Patience); err != nil {
			t.Fatal(err)
		}
	}
	const answer = 500 // bytes; a little less than one has
	each := (received.Load() - before) / answer / strangers / exchanges
	t.Logf("%d answers to each stranger while the broker answered once", each)
	if each > 100 {
		t.Errorf("each stranger had %d answers while the broker answered once", each)
	}
}

// A proxy on this machine does not make its clients "this machine".
func TestProxiedRequestsAreStrangers(t *testing.T) {
	r := newRig(t, nil, "car1")
	const act = "/api/v1/cars/car1/disconnect"
	for _, header := range []string{"X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "Via"} {
		for path, method := range map[string]string{"/api/v1/cars": "GET", act: "POST", "/api/v1/reload": "POST", "/readyz": "GET"} {
			a := r.do(method, path, "", "X-External-Server", "1", header, "192.0.2.1")
			if a.status != http.StatusUnauthorized || !strings.Contains(a.text(), "proxy") {
				t.Errorf("%s %s with %s: %d %s", method, path, header, a.status, a.text())
			}
		}
	}
	// nginx says nothing of itself unless told to, and speaks HTTP/1.0.
	c, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("POST " + act + " HTTP/1.0\r\nHost: 127.0.0.1\r\nX-External-Server: 1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 12)
	if _, err := c.Read(line); err != nil || string(line) != "HTTP/1.0 401" {
		t.Errorf("HTTP/1.0: %q %v", line, err)
	}
}

// Behind a proxy, a token counts as anywhere.
func TestTokensThroughAProxy(t *testing.T) {
	r := newRig(t, func(s settings) {
		s["admin"] = settings{"listen": "127.0.0.1:0", "tokens": tokens("ops:operate:secret")}
	}, "car1")
	if a := r.do("POST", "/api/v1/cars/car1/disconnect", "", "Authorization", "Bearer secret", "X-Forwarded-For", "192.0.2.1"); a.status != http.StatusAccepted {
		t.Errorf("%d %s", a.status, a.text())
	}
	if a := r.do("GET", "/healthz", "", "X-Forwarded-For", "192.0.2.1"); a.status != http.StatusUnauthorized {
		t.Errorf("a probe through the proxy: %d", a.status)
	}
}
