//go:build nats

package mqtt_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// NATS speaks only MQTT 3.1.1: its cars are served with clean sessions, and this is said
// once. `make nats` builds the server and runs this test.
func TestNATS(t *testing.T) {
	address := startNATS(t)
	car := id("company", "car")
	for range 2 {
		log, logger := newTestLog(t)
		l := newLink(t, mqtt.Options{Address: address, Sessions: sessions(4, "one"), Logger: logger})
		k := attachKeeper(t, l, car, func(k *keeper, payload string, d link.Delivery) { k.port.Publish([]byte("re: "+payload), d.Ack) })
		end := runSuspendable(t, l)
		testwait.Until(t, "the link is up", func() bool { return l.State().Up })
		g := gateway(t, address, car)
		say(t, g, car, "hello")
		if got := hear(t, g); string(got.Payload) != "re: hello" {
			t.Errorf("answer %q", got.Payload)
		}
		if got := k.heard(); !slices.Equal(got, []string{"fresh", "hello"}) {
			t.Errorf("heard %q", got)
		}
		if s := l.State().Connections[0]; s.Kept || s.Version != "3.1.1" {
			t.Errorf("state: %+v", s)
		}
		if log.count("level=WARN", "MQTT 3.1.1") != 1 {
			t.Error("it was not said once")
		}
		end(link.ErrSuspend)
		say(t, g, car, "to nobody")
	}
}

func startNATS(t *testing.T) (address string) {
	t.Helper()
	path := os.Getenv("NATS_SERVER")
	if path == "" {
		t.Fatal("NATS_SERVER must name the program: run `make nats`")
	}
	dir := t.TempDir()
	address = brokertest.FreeAddress(t)
	conf := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("server_name: n1\nlisten: %q\njetstream { store_dir: %q }\nmqtt { listen: %q }\n", brokertest.FreeAddress(t), dir, address)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out testlog.Buffer
	cmd := exec.Command(path, "-c", conf)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
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
