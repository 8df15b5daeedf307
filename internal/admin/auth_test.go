package admin_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	r := newRig(t, func(s settings) {
		s["admin"] = settings{"listen": "127.0.0.1:0", "tokens": tokens("eve:read:read-secret", "ops:operate:operate-secret")}
	}, "car1")
	read, operate := "Bearer read-secret", "bearer  operate-secret"
	for _, c := range []struct {
		method, path, auth string
		status             int
	}{
		{"GET", "/api/v1/cars", "", 401},
		{"GET", "/metrics", "", 401},
		{"GET", "/api/v1/openapi.json", "", 401},
		{"GET", "/api/v1/cars", "Bearer wrong", 401},
		{"GET", "/api/v1/cars", "Bearer ", 401},
		{"GET", "/api/v1/cars", "Basic read-secret", 401},
		{"GET", "/api/v1/cars", read, 200},
		{"GET", "/api/v1/cars", operate, 200},
		{"POST", "/api/v1/cars/car1/disconnect", "", 401},
		{"POST", "/api/v1/cars/car1/disconnect", read, 403},
		{"POST", "/api/v1/cars/car1/disconnect", operate, 202},
		{"POST", "/api/v1/reload", read, 403},
		{"POST", "/api/v1/stop", read, 403},
		{"PUT", "/api/v1/log-levels/car", read, 403},
		{"GET", "/healthz", "", 200}, // probes of this machine
		{"GET", "/readyz", "", 200},
		{"GET", "/readyz", "Bearer wrong", 401},
		{"GET", "/", "", 200}, // the page asks for the token
	} {
		header := []string{"X-External-Server", "test"}
		if c.auth != "" {
			header = append(header, "Authorization", c.auth)
		}
		a := r.do(c.method, c.path, "", header...)
		if a.status != c.status {
			t.Errorf("%s %s with %q: %d, want %d: %s", c.method, c.path, c.auth, a.status, c.status, a.text())
		}
		if a.status == 401 && a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s: no WWW-Authenticate", c.method, c.path)
		}
	}
	// A name that is not ours needs a token on every path.
	if a := r.do("GET", "/healthz", "", "Host", "evil.example"); a.status != 401 {
		t.Errorf("healthz for another name: %d", a.status)
	}
	// Tokens change with a reload, and appear nowhere.
	s := defaults(r.dir, "car1")
	s["admin"] = settings{"listen": "127.0.0.1:0", "tokens": tokens("ops:operate:new-secret")}
	r.write(s)
	if a := r.do("POST", "/api/v1/reload", "", "Authorization", operate); a.status != 200 {
		t.Fatalf("reload: %d %s", a.status, a.text())
	}
	if a := r.do("GET", "/api/v1/cars", "", "Authorization", operate); a.status != 401 {
		t.Errorf("the old token: %d", a.status)
	}
	a := r.do("GET", "/api/v1/server", "", "Authorization", "Bearer new-secret")
	if a.status != 200 || !strings.Contains(a.text(), `"you":{"token":"ops","role":"operate"}`) {
		t.Errorf("the new token: %d %s", a.status, a.text())
	}
	metrics := r.do("GET", "/metrics", "", "Authorization", "Bearer new-secret")
	for _, text := range []string{r.log.String(), a.text(), metrics.text()} {
		if strings.Contains(text, "-secret") {
			t.Error("a token was shown")
		}
	}
}

// Without tokens, this machine may do everything, but no page of another site may
// make a browser do it.
func TestWithoutTokens(t *testing.T) {
	r := newRig(t, nil, "car1")
	const act = "/api/v1/cars/car1/disconnect"
	host := strings.TrimPrefix(r.base, "http://")
	_, port, _ := net.SplitHostPort(host)
	for _, c := range []struct {
		what, method, path string
		header             []string
		status             int
	}{
		{"read", "GET", "/api/v1/cars", nil, 200},
		{"operate without the header", "POST", act, nil, 403},
		{"operate", "POST", act, []string{"X-External-Server", "1"}, 202},
		{"own page", "POST", act, []string{"X-External-Server", "1", "Origin", "http://" + host, "Sec-Fetch-Site", "same-origin"}, 202},
		{"page of another site", "POST", act, []string{"X-External-Server", "1", "Sec-Fetch-Site", "cross-site"}, 403},
		{"page of another site, old browser", "POST", act, []string{"X-External-Server", "1", "Origin", "http://evil.example"}, 403},
		{"rebound name reads", "GET", "/api/v1/cars", []string{"Host", "evil.example:" + port}, 401},
		{"rebound name operates", "POST", act, []string{"X-External-Server", "1", "Host", "evil.example"}, 401},
		{"localhost", "GET", "/api/v1/cars", []string{"Host", "localhost:" + port}, 200},
		{"IPv6 loopback", "GET", "/api/v1/cars", []string{"Host", "[::1]:" + port}, 200},
		{"a token that does not exist", "GET", "/api/v1/cars", []string{"Authorization", "Bearer x"}, 401},
	} {
		if a := r.do(c.method, c.path, "", c.header...); a.status != c.status {
			t.Errorf("%s: %d, want %d: %s", c.what, a.status, c.status, a.text())
		}
	}
	a := r.do("GET", "/", "")
	for header, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
	} {
		if got := a.header.Get(header); !strings.Contains(got, want) {
			t.Errorf("%s: %q", header, got)
		}
	}
	for _, bad := range []string{"unsafe-inline", "unsafe-eval", "http:", "https:", "*"} {
		if strings.Contains(a.header.Get("Content-Security-Policy"), bad) {
			t.Errorf("the policy allows %s", bad)
		}
	}
	if a := r.do("OPTIONS", act, "", "Origin", "http://evil.example", "Access-Control-Request-Method", "POST"); a.header.Get("Access-Control-Allow-Origin") != "" || a.status < 400 {
		t.Errorf("a preflight is answered %d", a.status)
	}
}

// Beyond loopback, "insecure" lets anyone read; a change still needs a token.
func TestInsecure(t *testing.T) {
	r := newRig(t, func(s settings) { s["admin"] = settings{"listen": "0.0.0.0:0", "insecure": true} }, "car1")
	_, port, _ := net.SplitHostPort(r.app.AdminAddr().String())
	r.base = "http://127.0.0.1:" + port
	if a := r.do("GET", "/api/v1/cars", "", "Host", "server.example"); a.status != 200 {
		t.Errorf("read: %d %s", a.status, a.text())
	}
	if a := r.operate(http.MethodPost, "/api/v1/cars/car1/disconnect", ""); a.status != 403 || !strings.Contains(a.text(), "role operate") {
		t.Errorf("operate: %d %s", a.status, a.text())
	}
}
