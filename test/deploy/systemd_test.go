package deploytest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

const unitFile = "deploy/systemd/external-server.service"

func readUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servertest.Root(), unitFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// setting returns the values of a key of the unit.
func setting(unit, key string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^`+key+`=(.*)$`).FindAllStringSubmatch(unit, -1) {
		out = append(out, m[1])
	}
	return out
}

// What systemd itself says about the unit, where it is installed, and what must
// not get lost.
func TestUnit(t *testing.T) {
	unit := readUnit(t)
	for key, want := range map[string]string{
		"Type": "notify", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "Restart": "on-failure",
		"KillMode": "mixed", "CapabilityBoundingSet": "", "User": "external-server", "StartLimitIntervalSec": "0",
		"KillSignal": "SIGTERM", "StateDirectory": "external-server",
	} {
		if got := setting(unit, key); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %v, expected %q", key, got, want)
		}
	}
	verify := testneed.Tool(t, "systemd", "systemd-analyze")
	// The program is not installed here: the unit is verified with the one built.
	path := filepath.Join(t.TempDir(), "external-server.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(unit, "/usr/bin/external-server", servertest.Binary(t))), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(verify, "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), filepath.Base(path)) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// manager receives what a service tells systemd.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func (m manager) expect(want string) {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
		m.t.Fatal(err)
	}
	buffer := make([]byte, 8192)
	n, err := m.conn.Read(buffer)
	if err != nil {
		m.t.Fatalf("the manager waits for %s: %v", want, err)
	}
	if got := string(buffer[:n]); !regexp.MustCompile(`(?s)^` + want + `$`).MatchString(got) {
		m.t.Fatalf("the manager was told %q, expected %s", got, want)
	}
}

// The server tells the service manager what Type=notify is about; the packaged
// configuration is served, reloaded with SIGHUP and stopped with SIGTERM.
func TestServiceManager(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := manager{t, conn}

	config := packagedConfig(t, t.TempDir())
	s := servertest.Start(t, servertest.Options{Config: config, Env: []string{"NOTIFY_SOCKET=" + socket}})
	m.expect("READY=1")
	s.WaitLog("serving")

	config["cars"] = map[string]any{"*": map[string]any{}, "car_a": map[string]any{}}
	servertest.WriteConfig(t, s.ConfigPath, config)
	s.Signal(syscall.SIGHUP)
	m.expect(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	m.expect(`READY=1\nSTATUS=reloaded: 1 cars added, .*`)

	config["cars"] = map[string]any{}
	servertest.WriteConfig(t, s.ConfigPath, config)
	s.Signal(syscall.SIGHUP)
	m.expect(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	m.expect(`READY=1\nSTATUS=not reloaded: [^\n]*cars[^\n]*`)

	s.Signal(syscall.SIGTERM)
	m.expect("STOPPING=1")
	if code := s.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// A restart is invisible: the server kept its sessions, where only it can read them.
	if !strings.Contains(s.Log(), "suspending") {
		t.Error("the server did not suspend its sessions")
	}
	state := config["state_directory"].(string)
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, mode %v, expected 0700", state, err, info.Mode())
	}
}

// packagedConfig is the configuration that packages install, with free ports and
// its files in dir.
func packagedConfig(t *testing.T, dir string) map[string]any {
	t.Helper()
	c := &container{t: t, root: dir}
	path := filepath.Join(dir, "etc/external-server/config.json")
	for _, made := range []string{filepath.Dir(path), filepath.Join(dir, "var/lib/external-server")} {
		if err := os.MkdirAll(made, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyFile(filepath.Join(servertest.Root(), "deploy/package/config.json"), path, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"admin-token", "monitoring-token"} { // what the installation makes
		write(t, filepath.Join(filepath.Dir(path), token), "secret-"+token)
	}
	var out map[string]any
	c.rewrite("/etc/external-server/config.json", func(config map[string]any) {
		for _, block := range []string{"embedded_broker", "http_api", "admin"} {
			config[block].(map[string]any)["listen"] = "127.0.0.1:0"
		}
		out = config
	})
	return out
}
