package admin_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"external-server/internal/brokertest"
	"external-server/internal/gateway"
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
	for _, name := range names {
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
	if _, ends := r.session("changes"); ends != 0 { // of the new actor; what is remembered is in session_ends
		t.Errorf("the changed car has %d ends", ends)
	}
	var changed struct {
		Ends []struct{ Reason string } `json:"session_ends"`
	}
	r.get("/api/v1/cars/changes", &changed)
	if len(changed.Ends) != 1 {
		t.Errorf("ends of the changed car %+v", changed.Ends)
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

// A file with an error changes nothing and says why, to whoever asked.
func TestBadReload(t *testing.T) {
	r := newRig(t, nil, "car1")
	r.car("car1")
	id, _ := r.session("car1")
	events := r.stream("/api/v1/events")
	good := defaults(r.dir, "car1")
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
		"needs restart":  {edited(func(s settings) { s["company_name"] = "other" }), []string{"company_name", "restart"}},
		"logging": {edited(func(s settings) {
			s["logging"] = settings{"console": settings{"use": true, "level": "INFO", "format": "json"}}
		}), []string{"logging", "restart"}},
	} {
		r.write(c.s)
		a := r.reload()
		if a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", what, a.status, a.text())
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(a.text(), w) {
				t.Errorf("%s: %q does not name %q", what, a.text(), w)
			}
		}
		ev := events.next(func(ev sent) bool { return ev.kind == "config" })
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
