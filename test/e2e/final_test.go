package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// durable is formatD with a state directory, and the admin endpoint at an address; ""
// for none.
func durable(t testing.TB, m *brokertest.Mosquitto, state, admin string, cars ...string) obj {
	config := formatD(m.Address(), exampleModule(t), cars...)
	config["state_directory"] = state
	if admin != "" {
		config["admin"] = obj{"listen": admin}
	}
	return config
}

// brokerKeeps tells whether the broker keeps the session of a client. It takes the session
// over for the moment, and leaves it as it was.
func brokerKeeps(t testing.TB, broker, client string) bool {
	t.Helper()
	c, err := net.Dial("tcp", broker)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hello := wire.AppendConnect(nil, wire.ConnectOptions{Version: wire.V5, ClientID: client, Continue: true, SessionExpiry: 120, KeepAlive: 60})
	if _, err := c.Write(hello); err != nil {
		t.Fatal(err)
	}
	r := wire.NewReader(c, wire.MaxRemaining)
	r.Speak(wire.V5)
	var p wire.Packet
	if err := r.Next(&p); err != nil || p.Type != wire.Connack || p.Code != 0 {
		t.Fatalf("%v instead of a CONNACK, code %d, error %v", p.Type, p.Code, err)
	}
	return p.Present
}

// leftBehind returns for how many of the clients of a state directory the broker keeps a
// session, and how many bytes of journals there are.
func leftBehind(t testing.TB, broker, state string) (sessions int, journals int64) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(state, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	var id struct {
		Identity string
		Shards   int
	}
	if err := json.Unmarshal(text, &id); err != nil {
		t.Fatal(err)
	}
	for n := range id.Shards {
		if brokerKeeps(t, broker, fmt.Sprintf("es-%s-%d", id.Identity, n)) {
			sessions++
		}
	}
	err = filepath.WalkDir(filepath.Join(state, "shards"), func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			journals += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sessions, journals
}

// What becomes of a car's session when the server is stopped in each way, and by whom it
// is told: external-server stop through the admin endpoint or by the lock of the state
// directory, a signal, or the configuration.
func TestStopWithStateDirectory(t *testing.T) {
	for _, c := range []struct {
		name  string
		admin bool
		stop  []string // arguments of external-server stop; nil: the signal
		sig   syscall.Signal
		set   obj
		final bool
	}{
		{name: "SIGTERM", sig: syscall.SIGTERM},
		{name: "stop, through the endpoint", admin: true, stop: []string{"stop"}},
		{name: "stop, by the lock", stop: []string{"stop"}},
		{name: "SIGUSR1", sig: syscall.SIGUSR1, final: true},
		{name: "stop --final, through the endpoint", admin: true, stop: []string{"stop", "--final"}, final: true},
		{name: "stop --final, by the lock", stop: []string{"stop", "--final"}, final: true},
		{name: "SIGTERM with on_stop notify", sig: syscall.SIGTERM, set: obj{"on_stop": "notify"}, final: true},
		{name: "stop with on_stop notify", admin: true, stop: []string{"stop"}, set: obj{"on_stop": "notify"}, final: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := brokertest.Start(t, brokertest.Options{})
			state, admin := filepath.Join(t.TempDir(), "state"), ""
			if c.admin {
				admin = brokertest.FreeAddress(t)
			}
			config := durable(t, m, state, admin, "car_a")
			for k, v := range c.set {
				config[k] = v
			}
			s := servertest.Start(t, servertest.Options{Config: config})
			s.WaitLog("connected to the broker")
			car := startCar(t, open(m), "car_a")
			car.report(`{"pressed": true}`, button)
			s.WaitLog("session running")
			if c.stop == nil {
				s.Signal(c.sig)
			} else {
				out, notes, code := servertest.Run(t, t.TempDir(), append(c.stop, "-c", s.ConfigPath)...)
				noTrace(t, out+notes)
				if code != 0 || !strings.Contains(notes, fmt.Sprintf("process %d has ended", s.PID())) {
					t.Errorf("exit code %d, output:\n%s%s", code, out, notes)
				}
			}
			if code := s.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if c.final {
				car.expect("no ConnectResponse in time", "status not answered in time")
				car.reportUntil("the car is told", func() bool { return len(ends(car)) > 0 }, button)
			}
			sessions, journals := leftBehind(t, m.Address(), state)
			if c.final && (sessions != 0 || journals != 0) {
				t.Errorf("after the final stop the broker keeps %d sessions, and the journals have %d bytes", sessions, journals)
			}
			if !c.final && (sessions == 0 || journals == 0) {
				t.Errorf("after the stop the broker keeps %d sessions, and the journals have %d bytes", sessions, journals)
			}
			if c.final && c.sig != syscall.SIGUSR1 {
				return // what a later server does is the same for all
			}
			s = servertest.Start(t, servertest.Options{Config: config})
			want := 1
			if c.final {
				want = 2
			}
			_, before, _ := car.watch.get()
			car.reportUntil("the car is served again", func() bool {
				connected, answered, _ := car.watch.get()
				return connected >= want && answered >= before+3
			}, button)
			if connected, _, _ := car.watch.get(); connected != want || !c.final && len(ends(car)) > 0 {
				t.Errorf("the car has had %d sessions, expected %d; ends: %q", connected, want, ends(car))
			}
			if !c.final { // the example module is a library
				s.WaitLog("library made anew for resumed sessions")
			}
			if c.admin {
				out, _, _ := servertest.Run(t, t.TempDir(), "cars", "-c", s.ConfigPath)
				if !strings.Contains(out, "resumed ") {
					t.Errorf("the list of cars does not tell that the session was resumed:\n%s", out)
				}
				out, _, _ = servertest.Run(t, t.TempDir(), "car", "car_a", "-c", s.ConfigPath)
				if !strings.Contains(out, ", resumed ") {
					t.Errorf("the car does not tell that its session was resumed:\n%s", out)
				}
			}
			if code := s.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// ends are the reasons of what ended at a car.
func ends(c *testCar) []string {
	c.watch.mu.Lock()
	defer c.watch.mu.Unlock()
	return append([]string(nil), c.watch.ends...)
}

// Without a server there is nothing to stop, and the command says what it has looked at;
// neither does a lock that is left behind lead it to a process of the same number.
func TestStopWithoutServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state, path := filepath.Join(dir, "state"), filepath.Join(dir, "config.json")
	config := formatD("127.0.0.1:1", obj{}, "car_a")
	config["common_modules"] = obj{"1": obj{"builtin": "mission", "config": obj{"api_url": "http://localhost"}}}
	for _, c := range []struct {
		name string
		set  obj
		lock string
		want string
	}{
		{"nothing to go by", obj{}, "", "send it SIGTERM"},
		{"endpoint only", obj{"admin": obj{"listen": brokertest.FreeAddress(t)}}, "", "cannot be asked"},
		{"no directory", obj{"state_directory": state}, "", "no server is running"},
		{"left behind", obj{"state_directory": state}, fmt.Sprintf(`{"pid": %d, "started": 1, "host": "h"}`, os.Getpid()), "no server is running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.set {
				config[k] = v
			}
			defer func() {
				for k := range c.set {
					delete(config, k)
				}
			}()
			if c.lock != "" {
				if err := os.MkdirAll(state, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(state, "lock"), []byte(c.lock), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			servertest.WriteConfig(t, path, config)
			out, notes, code := servertest.Run(t, dir, "stop", "--final", "-c", path)
			noTrace(t, out+notes)
			if code != 1 || !strings.Contains(notes, c.want) {
				t.Errorf("exit code %d, expected 1 and %q:\n%s%s", code, c.want, out, notes)
			}
		})
	}
}

// A lock that another process holds while its content names a stranger: the stranger gets
// no signal.
func TestStopMeetsNoStranger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state, path := filepath.Join(dir, "state"), filepath.Join(dir, "config.json")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(state, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(lock, `{"pid": %d, "started": 1, "host": "elsewhere"}`, os.Getpid())
	config := formatD("127.0.0.1:1", obj{"1": obj{"builtin": "mission", "config": obj{"api_url": "http://localhost"}}}, "car_a")
	config["state_directory"] = state
	servertest.WriteConfig(t, path, config)
	out, notes, code := servertest.Run(t, dir, "stop", "-c", path)
	if code != 1 || !strings.Contains(notes, "elsewhere") || !strings.Contains(notes, "cannot be seen from here") {
		t.Errorf("exit code %d:\n%s%s", code, out, notes)
	}
}

// The final stop of a server that is still starting forgets what the process before left.
func TestFinalStopWhileStarting(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	config := durable(t, m, state, "", "car_a")
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	car := startCar(t, open(m), "car_a")
	car.report(`{"pressed": true}`, button)
	s.WaitLog("session running")
	s.Kill()
	record := filepath.Join(dir, "record")
	config["common_modules"] = obj{"77": obj{"lib_path": servertest.Probe(t),
		"config": obj{"record": record, "block": "init", "release": filepath.Join(dir, "never")}}}
	s = servertest.Start(t, servertest.Options{Config: config})
	testwait.Until(t, "the module is being initialised", func() bool {
		text, _ := os.ReadFile(record)
		return strings.Contains(string(text), "blocked init")
	})
	s.Signal(syscall.SIGUSR1)
	if code := s.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, journals := leftBehind(t, m.Address(), state); journals != 0 {
		t.Errorf("the journals have %d bytes", journals)
	}
}
