// Package brokertest starts a real mosquitto for tests and gives them a small
// MQTT peer that does what tests need to see: fresh connections, QoS 0, DUP.
//
// It may import link/mqtt/wire, lab/freeport and other test support only, and nothing but tests may import it.
package brokertest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/lab/freeport"
	"external-server/internal/support/mosquitto"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testneed"
)

// Options of Start. The zero value is an open broker without TLS.
type Options struct {
	// Username and Password that the broker demands; "" means anybody.
	Username, Password string
	// Others are passwords of further users, by name.
	Others map[string]string
	// Certs makes the broker speak TLS with Certs.Server and demand client
	// certificates of Certs.CA. Certs.ServerExpired is used when Expired is set.
	Certs   *Certs
	Expired bool
	// CommonName uses Certs.ServerCommonName.
	CommonName bool
	// ACL is the content of an access control file; "" means none.
	ACL string
	// Extra lines of configuration.
	Extra string
	// File is a whole configuration that is used instead, but for its listener.
	File string
}

// Mosquitto is a running broker. Its methods fail the test instead of returning
// errors.
type Mosquitto struct {
	t       testing.TB
	path    string
	conf    string
	port    int
	log     testlog.Buffer
	process *mosquitto.Process // nil: it has not started
}

// Path returns where mosquitto is installed; a test without it ends, see testneed.
func Path(t testing.TB) string {
	t.Helper()
	return testneed.Tool(t, "mosquitto", mosquitto.Names()...)
}

// listener is the line of a configuration file that names the port.
var listener = regexp.MustCompile(`(?m)^listener .*$`)

// Start runs a broker on a free loopback port until the test ends.
func Start(t testing.TB, opts Options) *Mosquitto {
	t.Helper()
	dir := t.TempDir()
	m := &Mosquitto{t: t, path: Path(t), conf: filepath.Join(dir, "mosquitto.conf")}
	t.Cleanup(m.stop)
	// Another process may take the free port before the broker does.
	for range 5 {
		m.port = freePort(t)
		m.write(m.conf, m.configuration(dir, opts))
		if m.start() {
			return m
		}
	}
	t.Fatalf("mosquitto did not start:\n%s", m.Log())
	return nil
}

func (m *Mosquitto) configuration(dir string, o Options) string {
	if o.File != "" {
		text, err := os.ReadFile(o.File)
		if err != nil {
			m.t.Fatal(err)
		}
		return listener.ReplaceAllString(string(text), fmt.Sprintf("listener %d 127.0.0.1", m.port))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listener %d 127.0.0.1\nmax_queued_messages 0\npersistence false\nlog_dest stderr\nlog_type all\n", m.port)
	if os.Geteuid() == 0 {
		fmt.Fprintln(&b, "user root") // it could not read the test's files otherwise
	}
	if o.Username == "" {
		fmt.Fprintln(&b, "allow_anonymous true")
	} else {
		file := filepath.Join(dir, "passwd")
		users := o.Username + ":" + o.Password + "\n"
		for name, password := range o.Others {
			users += name + ":" + password + "\n"
		}
		m.write(file, users)
		if out, err := exec.Command(testneed.Tool(m.t, "mosquitto", "mosquitto_passwd"), "-U", file).CombinedOutput(); err != nil {
			m.t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
		fmt.Fprintf(&b, "allow_anonymous false\npassword_file %s\n", file)
	}
	if o.ACL != "" {
		file := filepath.Join(dir, "acl")
		m.write(file, o.ACL)
		fmt.Fprintf(&b, "acl_file %s\n", file)
	}
	if o.Certs != nil {
		server := o.Certs.Server
		if o.Expired {
			server = o.Certs.ServerExpired
		} else if o.CommonName {
			server = o.Certs.ServerCommonName
		}
		fmt.Fprintf(&b, "cafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\n", o.Certs.CAFile, server.CertFile, server.KeyFile)
	}
	b.WriteString(o.Extra)
	return b.String()
}

func (m *Mosquitto) write(path, content string) {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func freePort(t testing.TB) int {
	_, port, err := net.SplitHostPort(FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// FreeAddress returns a loopback address without a listener, for a server that may be restarted.
func FreeAddress(t testing.TB) string {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// start runs the broker and reports whether it accepts connections.
func (m *Mosquitto) start() bool {
	process, err := mosquitto.Start(m.path, m.conf, m.Address(), &m.log)
	if err != nil {
		return false
	}
	m.process = process
	return true
}

// Address is host:port of the broker.
func (m *Mosquitto) Address() string { return "127.0.0.1:" + strconv.Itoa(m.port) }

// Port is the TCP port of the broker.
func (m *Mosquitto) Port() int { return m.port }

// PID is the number of the broker's process.
func (m *Mosquitto) PID() int { return m.process.PID() }

// Log is what the broker has written so far.
func (m *Mosquitto) Log() string { return m.log.String() }

// Kill ends the broker with SIGKILL; its connections break.
func (m *Mosquitto) Kill() {
	m.t.Helper()
	m.signal(syscall.SIGKILL)
	m.process.Wait()
}

// End ends the broker with SIGTERM: it writes what it keeps on disk.
func (m *Mosquitto) End() {
	m.t.Helper()
	m.signal(syscall.SIGTERM)
	m.process.Wait()
}

// Restart runs the broker again on the same port; it must not run.
func (m *Mosquitto) Restart() {
	m.t.Helper()
	if !m.start() {
		m.t.Fatalf("mosquitto did not start again:\n%s", m.Log())
	}
}

// Stop halts the broker (SIGSTOP): connections stay open and are not answered.
func (m *Mosquitto) Stop() { m.t.Helper(); m.signal(syscall.SIGSTOP) }

// Continue ends Stop.
func (m *Mosquitto) Continue() { m.t.Helper(); m.signal(syscall.SIGCONT) }

func (m *Mosquitto) signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.process.Signal(s); err != nil {
		m.t.Fatalf("mosquitto: %v", err)
	}
}

func (m *Mosquitto) stop() {
	if m.process == nil {
		return
	}
	ended := m.process.Ended()
	m.process.Kill()
	if ended != "" && m.t.Failed() {
		m.t.Logf("mosquitto had ended before the test: %s", ended)
	}
	if m.t.Failed() {
		m.t.Logf("log of mosquitto:\n%s", tail(m.Log(), 60))
	}
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
