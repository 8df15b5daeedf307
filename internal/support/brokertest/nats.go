package brokertest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
	"external-server/internal/support/tied"
)

// StartNATS runs the program that NATS_SERVER names, with an MQTT listener on a free
// loopback port, until the test ends; extra is further configuration. Environment holds
// the variables that it names.
func StartNATS(t testing.TB, extra string, environment ...string) (address string) {
	t.Helper()
	path := os.Getenv("NATS_SERVER")
	if path == "" {
		t.Fatal("NATS_SERVER must name the program: run `make nats`")
	}
	dir := t.TempDir()
	address = FreeAddress(t)
	conf := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("server_name: n1\nlisten: %q\njetstream { store_dir: %q }\nmqtt { listen: %q }\n%s", FreeAddress(t), dir, address, extra)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out testlog.Buffer
	cmd := exec.Command(path, "-c", conf)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdout, cmd.Stderr = &out, &out
	wait, err := tied.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = wait()
		if t.Failed() {
			t.Logf("log of nats-server:\n%s", out.String())
		}
	})
	testwait.Until(t, "nats-server listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return address
}
