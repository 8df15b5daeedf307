package admin_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
)

// session returns the id of a car's session and how many have ended.
func (r *rig) session(name string) (id string, ends int) {
	r.t.Helper()
	var c struct {
		Session string
		Ends    int
	}
	r.get("/api/v1/cars/"+name, &c)
	return c.Session, c.Ends
}

func (r *rig) reload() answer { return r.operate(http.MethodPost, "/api/v1/reload", "") }

// TestReload adds, removes and changes cars under running sessions and counts the
// sessions lost among the others: none.
func TestReload(t *testing.T) {
	const steady = 20
	var names []string
	for i := range steady {
		names = append(names, fmt.Sprintf("steady%02d", i))
	}
	r := newRig(t, nil, append(names, "leaves", "changes")...)
	gateways := map[string]*gateway.Gateway{}
	for _, name := range append(names, "leaves", "changes") {
		gateways[name] = r.car(name)
	}
	sessions := map[string]string{}
	for _, name := range append(names, "changes") {
		sessions[name], _ = r.session(name)
	}
	s := defaults(r.dir, append(names, "comes", "changes")...)
	s["cars"].(settings)["changes"] = settings{"specific_modules": settings{"1": settings{"builtin": "mission"}}}
	s["logging"] = settings{"console": settings{"use": true, "level": "WARNING"}}
	s["limits"] = settings{"payload_bytes": 50_000}
	r.write(s)
	a := r.reload()
	if a.status != 200 || !strings.Contains(a.text(), "1 cars added, 1 removed, 1 changed, 20 unchanged") {
		t.Fatalf("%d %s", a.status, a.text())
	}
	gateways["comes"] = r.car("comes")
	gateways["changes"].Status(teleop, []byte(`{"again":1}`), time.Time{})
	r.wait("the session of the changed car", func() bool { return r.state("changes") == "running" })
	if a := r.do("GET", "/api/v1/cars/leaves", ""); a.status != 404 {
		t.Errorf("the removed car: %d", a.status)
	}
	// A car whose modules are changed keeps its session.
	if id, ends := r.session("changes"); id != sessions["changes"] || ends != 0 {
		t.Errorf("the changed car has session %s and %d ends, expected session %s and none", id, ends, sessions["changes"])
	}
	lost := 0
	for _, name := range names {
		gateways[name].Status(teleop, []byte(`{"still":1}`), time.Time{})
		if id, ends := r.session(name); id != sessions[name] || ends != 0 {
			lost++
		}
	}
	if lost != 0 {
		t.Errorf("%d sessions of unchanged cars were lost", lost)
	}
	var levels map[string]struct{ Level string }
	r.get("/api/v1/log-levels", &levels)
	if levels["car"].Level != "WARNING" {
		t.Errorf("log level %s", levels["car"].Level)
	}
	// The limits are in force for running sessions.
	gateways[names[0]].Status(teleop, []byte(`"`+strings.Repeat("x", 60_000)+`"`), time.Time{})
	r.wait("a message that is too large", func() bool {
		var c struct{ Drops map[string]int }
		r.get("/api/v1/cars/"+names[0], &c)
		return c.Drops["message too large"] > 0
	})
}

// A file with an error changes nothing, and the one who asked is told why.
func TestBadReload(t *testing.T) {
	r := newRig(t, nil, "car1")
	r.car("car1")
	id, _ := r.session("car1")
	events := r.stream("/api/v1/events")
	good, pair := defaults(r.dir, "car1"), brokertest.NewCerts(t).Server
	edited := func(edit func(settings)) settings {
		s := defaults(r.dir, "car1", "car2")
		edit(s)
		return s
	}
	for what, c := range map[string]struct {
		s    settings
		want []string
	}{
		"bad limit":      {edited(func(s settings) { s["limits"] = settings{"payload_bytes": -1} }), []string{"config.json", "limits.payload_bytes", "unchanged"}},
		"wrong type":     {edited(func(s settings) { s["timeout"] = settings{} }), []string{"config.json", "timeout"}},
		"no library":     {edited(func(s settings) { s["common_modules"] = settings{"9": settings{"lib_path": "/nowhere/lib.so"}} }), []string{"/nowhere/lib.so"}},
		"no certificate": {edited(func(s settings) { s["external_communication"].(settings)["ca_certs_file"] = "/nowhere/ca.pem" }), []string{"/nowhere/ca.pem"}},
		"needs restart":  {edited(func(s settings) { s["company_name"] = "other" }), []string{`company_name (\"acme\" → \"other\")`, "restart"}},
		"logging": {edited(func(s settings) {
			s["logging"] = settings{"console": settings{"use": true, "level": "INFO", "format": "json"}}
		}), []string{`logging.console.format (\"text\" → \"json\")`, "restart"}},
		"store": {edited(func(s settings) {
			s["http_api"].(settings)["store"] = "postgres://u:hidden@h/db"
			s["admin"].(settings)["tls"] = settings{"cert_file": pair.CertFile, "key_file": pair.KeyFile}
			s["tracing"] = settings{}
		}), []string{"http_api.store", "admin.tls (added)", "tracing (added)", "restart"}},
		"large payloads": {edited(func(s settings) { s["limits"] = settings{"payload_bytes": 10 << 20} }), []string{"limits.payload_bytes", "embedded broker"}},
	} {
		r.write(c.s)
		a := r.reload()
		if a.status != http.StatusUnprocessableEntity || strings.Contains(a.text(), "hidden") {
			t.Errorf("%s: %d %s", what, a.status, a.text())
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(a.text(), w) {
				t.Errorf("%s: %q does not name %q", what, a.text(), w)
			}
		}
		ev := events.next(func(ev sent) bool { // the server looks at the file by itself, too
			return ev.kind == "config" && ev.data["reason"] != "file has an error"
		})
		if ev.data["reason"] != "failed" {
			t.Errorf("%s: event %v", what, ev.data)
		}
		var list struct{ Total int }
		r.get("/api/v1/cars", &list)
		if now, ends := r.session("car1"); now != id || ends != 0 || list.Total != 1 {
			t.Errorf("%s: session %s of %s, %d ends, %d cars", what, now, id, ends, list.Total)
		}
	}
	if err := os.WriteFile(r.file, []byte(`{"company_name": `), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := r.reload(); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), "config.json:1") {
		t.Errorf("half a file: %d %s", a.status, a.text())
	}
	r.write(good)
	if a := r.reload(); a.status != 200 {
		t.Errorf("the file in force: %d %s", a.status, a.text())
	}
}

// Certificates that were replaced are used for the next connection; ones that
// cannot be read are refused by the reload.
func TestRotatedCertificates(t *testing.T) {
	first, second := brokertest.NewCerts(t), brokertest.NewCerts(t)
	dir := t.TempDir()
	cert, key := dir+"/cert.pem", dir+"/key.pem"
	install := func(p brokertest.Pair) {
		t.Helper()
		for from, to := range map[string]string{p.CertFile: cert, p.KeyFile: key} {
			raw, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	install(first.Server)
	admin := settings{"listen": "127.0.0.1:0", "tls": settings{"cert_file": cert, "key_file": key}}
	r := newRig(t, func(s settings) { s["admin"] = admin }, "car1")
	r.base = strings.Replace(r.base, "http:", "https:", 1)
	trust := func(c *brokertest.Certs) {
		r.http.CloseIdleConnections()
		r.http = &http.Client{Transport: &http.Transport{TLSClientConfig: c.ClientConfig(nil)}}
	}
	trust(first)
	a := r.do("GET", "/api/v1/cars", "")
	if a.status != 200 || a.header.Get("Strict-Transport-Security") == "" {
		t.Fatalf("%d %s", a.status, a.text())
	}
	install(second.Server)
	trust(second)
	if a := r.do("GET", "/api/v1/cars", ""); a.status != 200 {
		t.Errorf("the new certificate: %d", a.status)
	}
	if err := os.WriteFile(cert, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := r.reload(); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), "admin.tls") {
		t.Errorf("a broken certificate: %d %s", a.status, a.text())
	}
	if a := r.do("GET", "/api/v1/cars", ""); a.status != 200 {
		t.Errorf("the last good certificate: %d", a.status)
	}
}

// Everything that can change without anyone noticing does: users of the broker, the
// link's own password, limits, the HTTP API's times, where a module is written.
func TestReloadOfSettings(t *testing.T) {
	user := func(name, password string) settings { return settings{"name": name, "password": password} }
	with := func(s settings, password string, users ...any) settings {
		s["embedded_broker"].(settings)["users"] = append([]any{user("server", password)}, users...)
		s["external_communication"].(settings)["username"] = "server"
		s["external_communication"].(settings)["password"] = password
		return s
	}
	r := newRig(t, func(s settings) { with(s, "old", user("stays", "1"), user("goes", "1")) }, "car1")
	address := r.app.BrokerAddr().String()
	dial := func(name, password string) (*brokertest.Peer, error) {
		return brokertest.Dial(brokertest.PeerOptions{Address: address, Username: name, Password: password, ClientID: name + password})
	}
	stays, err := dial("stays", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Conn.Close()
	goes, err := dial("goes", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer goes.Conn.Close()
	gw := r.carAs("car1", "stays", "1")
	gw.Status(teleop, []byte(`{}`), time.Time{})
	id, _ := r.session("car1")

	s := with(defaults(r.dir, "car1"), "new", user("stays", "2"), user("comes", "1"))
	s["limits"] = settings{"payload_bytes": 2 << 20, "module_queue": 7, "stop_timeout_ms": 30000}
	s["http_api"].(settings)["retention_s"] = 60
	s["http_api"].(settings)["wait_timeout_ms"] = 1000
	s["sleep_duration_after_connection_refused"] = 2
	s["common_modules"], s["cars"] = settings{}, settings{"car1": settings{"specific_modules": settings{"3": settings{"builtin": "transparent"}}}}
	r.write(s)
	if a := r.reload(); a.status != 200 || !strings.Contains(a.text(), "0 changed, 1 unchanged") {
		t.Fatalf("%d %s", a.status, a.text())
	}
	if err := stays.Ping(); err != nil {
		t.Errorf("the user that stays lost its connection: %v", err)
	}
	r.wait("the removed user's connection to end", func() bool { return goes.Ping() != nil })
	for _, c := range []struct {
		name, password string
		ok             bool
	}{{"stays", "1", false}, {"stays", "2", true}, {"goes", "1", false}, {"comes", "1", true}, {"server", "old", false}, {"server", "new", true}} {
		p, err := dial(c.name, c.password)
		if (err == nil) != c.ok {
			t.Errorf("user %s with %s: %v", c.name, c.password, err)
		}
		if err == nil {
			p.Conn.Close()
		}
	}
	// A message that was too large before is taken by the running session.
	large := []byte(`"` + strings.Repeat("x", 1<<20+1000) + `"`)
	gw.Status(teleop, large, time.Time{})
	r.wait("the large status", func() bool {
		var c struct {
			Devices []struct {
				Last struct {
					Payload struct{ Size int }
				} `json:"last_status"`
			}
		}
		r.get("/api/v1/cars/car1", &c)
		return len(c.Devices) == 1 && c.Devices[0].Last.Payload.Size == len(large)
	})
	if now, ends := r.session("car1"); now != id || ends != 0 {
		t.Errorf("session %s of %s, %d ends", now, id, ends)
	}
	if text := r.log.String(); strings.Contains(text, "is not in force") {
		t.Error(text)
	}
}

// Other certificate files are used from the next connection on.
func TestReloadOfCertificateFiles(t *testing.T) {
	first, second := brokertest.NewCerts(t), brokertest.NewCerts(t)
	tls := func(s settings, p brokertest.Pair) {
		for _, block := range []string{"embedded_broker", "http_api", "admin"} {
			s[block].(settings)["tls"] = settings{"cert_file": p.CertFile, "key_file": p.KeyFile}
		}
	}
	r := newRig(t, func(s settings) { tls(s, first.Server) }, "car1")
	r.base = strings.Replace(r.base, "http:", "https:", 1)
	trust := func(c *brokertest.Certs) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: c.ClientConfig(nil), DisableKeepAlives: true}}
	}
	r.http = trust(first)
	s := defaults(r.dir, "car1")
	tls(s, second.Server)
	r.write(s)
	if a := r.reload(); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.text())
	}
	r.http = trust(second)
	if a := r.do("GET", "/api/v1/cars", ""); a.status != 200 {
		t.Errorf("admin: %d", a.status)
	}
	answer, err := r.http.Get("https://" + r.app.HTTPAPIAddr().String() + "/")
	if err != nil {
		t.Errorf("http_api: %v", err)
	} else {
		answer.Body.Close()
	}
	p, err := brokertest.Dial(brokertest.PeerOptions{Address: r.app.BrokerAddr().String(), TLS: second.ClientConfig(nil)})
	if err != nil {
		t.Errorf("embedded broker: %v", err)
	} else {
		p.Conn.Close()
	}
}
