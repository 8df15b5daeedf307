package faults

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// newRig is a rig outside the table.
func newRig(t *testing.T) *rig {
	return &rig{TB: t, row: &row{}, dir: t.TempDir(), libraries: make(map[int32]string)}
}

// secret is one planted secret and what it is.
type secret struct{ what, text string }

// Everything that is secret is planted, everything that writes is provoked, also
// into errors: none of it may appear in the log, in metrics, in answers of the admin
// endpoint, in the output of commands, on the wire to cars, or in the environment of
// module processes.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	secrets := []secret{
		{"broker password of the environment", "plantedbrokerenvironment"},
		{"broker password of the file", "plantedbrokerfile"},
		{"password of a user of the embedded broker", "plantedbrokeruser"},
		{"password of a car of the embedded broker", "plantedcaruser"},
		{"key of the HTTP API", "plantedapikey"},
		{"value of a module's config", "plantedmodulevalue"},
		{"token of the admin endpoint", "plantedadmintoken"},
		{"password in the store of the HTTP API", "plantedstorepassword"},
	}
	certs := brokertest.NewCerts(t)
	for _, line := range strings.Split(string(r.read(certs.Server.KeyFile)), "\n") {
		if len(line) > 40 && !strings.Contains(line, "KEY") {
			secrets = append(secrets, secret{"private key", line})
		}
	}
	admin := brokertest.FreeAddress(t)
	r.configure(map[string]int32{"car_0000": recorder})
	r.embedBroker()
	r.config["embedded_broker"].(obj)["users"] = []obj{
		{"name": "server", "password": "plantedbrokeruser"}, {"name": "car", "password": "plantedcaruser", "car": "car_0000"},
	}
	r.config["embedded_broker"].(obj)["tls"] = obj{"cert_file": certs.Server.CertFile, "key_file": certs.Server.KeyFile}
	environment := r.dir + "/environment"
	modules := r.config["cars"].(obj)["car_0000"].(obj)["specific_modules"].(obj)
	modules["78"].(obj)["config"].(obj)["password"] = "plantedmodulevalue"
	modules["78"].(obj)["config"].(obj)["environment"] = environment
	// Nothing listens there, so that every request is an error that could quote it.
	modules["3"] = obj{"builtin": "transparent", "config": obj{"api_url": "http://" + brokertest.FreeAddress(t) + "/v2/protocol", "api_key": "plantedapikey"}}
	r.config["http_api"] = obj{"listen": brokertest.FreeAddress(t), "store": "sqlite:" + r.dir + "/api.db"}
	r.config["admin"] = obj{"listen": admin, "per_car_metrics": true, "tokens": []obj{{"name": "ops", "role": "operate", "token": "plantedadmintoken"}}}
	r.config["logging"] = obj{
		"console": obj{"level": "DEBUG", "use": true},
		"file":    obj{"level": "DEBUG", "use": true, "path": r.dir, "format": "json"},
	}
	r.opts.Env = []string{
		"EXTERNAL_SERVER_MQTT_USERNAME=server", "EXTERNAL_SERVER_MQTT_PASSWORD=plantedbrokeruser",
		"EXTERNAL_SERVER_ADMIN_TOKEN=plantedadmintoken", "NOTIFY_SOCKET=" + r.dir + "/plantednotifysocket",
	}
	r.startServer()
	r.server.WaitLog("connected to the broker")
	outputs := make(map[string]string)

	c := newCar(t, carOptions{name: "car_0000", module: recorder, timing: r.timing(), broker: gateway.Broker{
		Address: r.embedded, TLS: &tls.Config{RootCAs: certs.Pool, ServerName: "localhost"}, Username: "car", Password: "plantedcaruser",
	}})
	t.Cleanup(c.Close)
	r.crew = &crew{t: t, cars: []*car{c}}
	begin := time.Now()
	c.report()
	r.crew.served(begin, testwait.Patience)
	// Wrong credentials, half right.
	for _, password := range []string{"plantedbrokerfile", "x"} {
		if p, err := brokertest.Dial(brokertest.PeerOptions{Address: r.embedded, TLS: &tls.Config{RootCAs: certs.Pool, ServerName: "localhost"}, Username: "server", Password: password}); err == nil {
			t.Error("a wrong password was accepted")
			_ = p.Close()
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/api/v1/openapi.json", "/api/v1/server", "/api/v1/cars", "/api/v1/cars/car_0000",
		"/api/v1/cars/car_0000/messages", "/api/v1/modules", "/api/v1/log-levels", "/", "/api/v1/nothing"} {
		for name, token := range map[string]string{"right": "plantedadmintoken", "wrong": "plantedadmintokenwrong", "no": ""} {
			outputs["admin "+path+" with "+name+" token"] = get(t, "http://"+admin+path, token)
		}
	}
	if s := outputs["admin /api/v1/server with right token"]; !strings.Contains(s, "version") {
		t.Errorf("the admin endpoint answers %s", s)
	}
	// A reload that fails: file, passwords, a store that is not reachable.
	good := string(r.read(r.server.ConfigPath))
	for i, change := range []func(obj){
		func(c obj) { c["company_name"] = "other" },
		func(c obj) {
			c["mqtt_password"] = "plantedbrokerfile"
			c["mqtt_username"] = "server"
			delete(c, "cars")
		},
		func(c obj) {
			c["http_api"].(obj)["store"] = "postgres://u:plantedstorepassword@127.0.0.1:1/d"
			c["http_api"].(obj)["retention_s"] = -1
		},
		func(c obj) { c["admin"].(obj)["tokens"] = "plantedadmintoken" },
		func(c obj) {
			c["cars"].(obj)["car_0000"].(obj)["specific_modules"].(obj)["78"].(obj)["config"] = obj{"password": []string{"plantedmodulevalue"}}
		},
	} {
		var c obj
		if err := json.Unmarshal([]byte(good), &c); err != nil {
			t.Fatal(err)
		}
		change(c)
		writeConfig(r, c)
		before := strings.Count(r.server.Log(), "config.json")
		r.reload()
		testwait.Until(t, "the reload is logged", func() bool { return strings.Count(r.server.Log(), "config.json") > before })
		for _, command := range [][]string{{"check"}, {"config", "migrate"}} {
			out, errs, _ := servertest.Run(t, r.dir, append(command, r.server.ConfigPath)...)
			if command[0] == "config" {
				out = "" // the migrated file is a configuration: it has them all
			}
			outputs[fmt.Sprintf("%v of broken file %d", command, i)] = out + errs
		}
	}
	// A server whose store cannot be reached serves cars and says what is wrong.
	var c2 obj
	if err := json.Unmarshal([]byte(good), &c2); err != nil {
		t.Fatal(err)
	}
	c2["http_api"].(obj)["store"] = "postgres://u:plantedstorepassword@127.0.0.1:1/d"
	for _, block := range []string{"embedded_broker", "admin", "http_api"} {
		c2[block].(obj)["listen"] = brokertest.FreeAddress(t)
	}
	c2["logging"].(obj)["file"].(obj)["use"] = false
	second := servertest.Start(t, servertest.Options{Config: c2, Env: r.opts.Env})
	second.WaitLog("the message store of the HTTP API failed")
	second.WaitLog("connected to the broker")
	second.Signal(syscall.SIGTERM)
	if code := second.Wait(); code != 0 {
		t.Errorf("the server without store ended with code %d", code)
	}
	outputs["start without store"] = second.Log()
	c.report()
	// The dump of a server that is made to end says where it was, not what it knew.
	r.server.Signal(syscall.SIGQUIT)
	r.server.Wait()
	outputs["console with dump"] = r.server.Log()
	files, err := filepath.Glob(r.dir + "/*.log*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no log files: %v", err)
	}
	for _, f := range append(files, environment, r.record(recorder)) {
		outputs[filepath.Base(f)] = string(r.read(f))
	}
	if e := outputs["environment"]; !strings.Contains(e, "FLEET_MODULE_FD") || strings.Contains(e, "NOTIFY_SOCKET") || strings.Contains(e, "EXTERNAL_SERVER_") {
		t.Errorf("the module has not written its environment, or has variables of the server: %q", e)
	}
	for _, s := range secrets {
		for name, text := range outputs {
			if at := strings.Index(text, s.text); at >= 0 {
				t.Errorf("%s shows the %s: …%s", name, s.what, text[max(0, at-100):min(len(text), at+60)])
			}
		}
	}
}

// get returns the answer, of a stream what comes within a second after its beginning.
func get(t *testing.T, url, token string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer time.AfterFunc(time.Second, cancel).Stop()
	body, _ := io.ReadAll(resp.Body) // until the end or the second
	return fmt.Sprint(resp.Status, resp.Header, string(body))
}

// The memory of the server is closed to other processes of its user, modules among
// them, and to core dumps: its files in /proc belong to root.
func TestMemoryIsGuarded(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "external-server-guarded-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	binary, err := os.ReadFile(servertest.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	servertest.WriteProgram(t, dir+"/external-server", binary)
	if err := errors.Join(os.Chmod(dir, 0o755), //nolint:gosec // another user runs the program
		os.WriteFile(dir+"/config.json", fmt.Appendf(nil, `{"company_name": "acme", "embedded_broker": {"listen": %q},
			"cars": {"car": {"specific_modules": {"3": {"builtin": "transparent", "config": {"api_url": "http://127.0.0.1:1/x"}}}}}}`, brokertest.FreeAddress(t)), 0o644)); err != nil { //nolint:gosec // the same
		t.Fatal(err)
	}
	cmd := exec.Command(dir+"/external-server", "-c", dir+"/config.json")
	cmd.Dir = dir
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // root's files would belong to root anyway
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "connected to the broker") {
		t.Log(lines.Text())
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("the server's memory is open to user %d", owner)
	}
}

// A car with valid credentials of its own does what it can to another one.
func TestHostileCarStaysInItsRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.configure(map[string]int32{"hostile": recorder, "victim": recorder})
	r.embedBroker()
	r.config["embedded_broker"].(obj)["users"] = []obj{
		{"name": "server", "password": "s"}, {"name": "h", "password": "hh", "car": "hostile"}, {"name": "v", "password": "vv", "car": "victim"},
	}
	r.config["limits"] = obj{"messages_per_second": 50}
	r.startServer()
	r.server.WaitLog("connected to the broker")
	c := newCar(t, carOptions{name: "victim", module: recorder, timing: r.timing(), broker: gateway.Broker{Address: r.embedded, Username: "v", Password: "vv"}})
	t.Cleanup(c.Close)
	r.crew = &crew{t: t, cars: []*car{c}}
	r.crew.start(100 * time.Millisecond)
	t.Cleanup(r.crew.haltOnce())
	r.crew.served(time.Now(), testwait.Patience)

	me := brokertest.PeerOptions{Address: r.embedded, Username: "h", Password: "hh", ClientID: company + "/hostile"}
	dial := func(o brokertest.PeerOptions) *brokertest.Peer {
		p, err := brokertest.Dial(o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, o := range []brokertest.PeerOptions{ // none of these may connect
		{ClientID: company + "/victim"},
		{ClientID: "anything"},
		{ClientID: me.ClientID, Will: &wire.Will{Topic: company + "/victim/module_gateway", Payload: hostile(4)}},
		{ClientID: me.ClientID, Will: &wire.Will{Topic: company + "/victim/external_server_disconnect"}},
	} {
		o.Address, o.Username, o.Password = me.Address, me.Username, me.Password
		if p, err := brokertest.Dial(o); err == nil {
			t.Errorf("the hostile car may connect as %s with will %v", o.ClientID, o.Will)
			_ = p.Conn.Close()
		}
	}
	peer := dial(me)
	for _, filter := range []string{"#", "+/+/module_gateway", company + "/+/external_server", company + "/victim/external_server", "$share/x/" + company + "/victim/module_gateway", "$SYS/#"} {
		if err := peer.Subscribe(1, filter); err == nil {
			t.Errorf("the hostile car may read %s", filter)
		}
	}
	for i, topic := range []string{company + "/victim/module_gateway", company + "/victim/external_server", company + "/victim/external_server_disconnect", company + "/hostile/../victim/module_gateway"} {
		if p, err := brokertest.Dial(me); err == nil { // each attempt may cost the connection
			for n := range 20 {
				if err := p.Send(topic, hostile(n+i)); err != nil {
					break
				}
			}
			_ = p.Ping() // an error when the broker has ended the connection
			_ = p.Conn.Close()
		}
	}
	// In its own room it may shout as loud as it likes.
	peer = dial(me)
	for n := range 3000 {
		if err := peer.Send(company+"/hostile/module_gateway", hostile(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := peer.Ping(); err != nil {
		t.Fatal(err)
	}
	r.crew.served(time.Now(), testwait.Patience)
	r.unaffected(r.crew.cars)
	r.finish("")
	if n := len(c.wrong); n > 0 {
		t.Errorf("the victim noticed: %s", c.reasons(c.wrong))
	}
}

// Every listener, and the link to the broker, refuses what is older than TLS 1.2.
func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	certs := brokertest.NewCerts(t)
	files := obj{"cert_file": certs.Server.CertFile, "key_file": certs.Server.KeyFile}
	listeners := map[string]string{"embedded_broker": brokertest.FreeAddress(t), "admin": brokertest.FreeAddress(t), "http_api": brokertest.FreeAddress(t)}
	r.configure(map[string]int32{"car_0000": recorder})
	r.embedBroker()
	for key, address := range listeners {
		r.config[key] = obj{"listen": address, "tls": files}
	}
	r.config["http_api"].(obj)["store"] = "sqlite:" + r.dir + "/api.db"
	r.startServer()
	r.server.WaitLog("connected to the broker")
	for key, address := range listeners {
		for _, c := range []struct {
			version uint16
			ok      bool
		}{{tls.VersionTLS10, false}, {tls.VersionTLS11, false}, {tls.VersionTLS12, true}, {tls.VersionTLS13, true}} {
			conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: certs.Pool, ServerName: "localhost", MinVersion: c.version, MaxVersion: c.version})
			if (err == nil) != c.ok {
				t.Errorf("%s with %s: %v", key, tls.VersionName(c.version), err)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
	}
	if code := r.server.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	old := certs.ServerConfig(certs.Server)
	old.MinVersion, old.MaxVersion, old.ClientAuth = tls.VersionTLS10, tls.VersionTLS11, tls.NoClientCert
	l, err := tls.Listen("tcp", "127.0.0.1:0", old)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
	}()
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	for key := range listeners {
		delete(r.config, key)
	}
	r.config["external_communication"] = obj{"server_address": "localhost", "server_port": port, "ca_certs_file": certs.CAFile}
	r.startServer()
	r.server.WaitLog("protocol version not supported")
}
