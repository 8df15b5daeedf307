package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/brokertest"
	"external-server/internal/servertest"
)

// SIGINT and SIGTERM end the server with exit code 0, also while a library
// blocks in wait_for_command or destroy; modules see their devices leave before
// their contexts are destroyed (CLI-24).
func TestStop(t *testing.T) {
	for _, c := range []struct {
		name, block string
		isolation   string
		signal      syscall.Signal
	}{
		{"SIGTERM", "", "process", syscall.SIGTERM},
		{"SIGINT in process", "", "none", syscall.SIGINT},
		{"poller blocked", "wait_for_command", "process", syscall.SIGTERM},
		{"poller blocked in process", "wait_for_command", "none", syscall.SIGTERM},
		{"destroy blocked", "destroy", "process", syscall.SIGTERM},
		{"destroy blocked in process", "destroy", "none", syscall.SIGTERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			record := filepath.Join(dir, "record")
			m := brokertest.Start(t, brokertest.Options{})
			module := obj{"lib_path": servertest.Probe(t), "isolation": c.isolation, "timeout_ms": 100,
				"config": obj{"record": record, "block": c.block, "release": filepath.Join(dir, "never")}}
			s := servertest.Start(t, servertest.Options{Config: formatD(m.Address(), obj{"77": module}, "car_a")})
			s.WaitLog("connected to the broker")
			car := startCar(t, open(m), "car_a")
			car.report("status", probe1)
			car.await(1, 1, 1)
			s.Signal(c.signal)
			if code := s.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			text, err := os.ReadFile(record)
			if err != nil {
				t.Fatal(err)
			}
			left := strings.Index(string(text), "device_disconnected")
			if left < 0 {
				t.Errorf("the module did not see its device leave:\n%s", text)
			}
			if c.block == "" {
				if destroyed := strings.Index(string(text), "destroy"); destroyed < left {
					t.Errorf("the context was destroyed before the device left, or never:\n%s", text)
				}
			}
		})
	}
}

// The second signal ends the server at once (CLI-16).
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	dir := t.TempDir()
	config := formatD(m.Address(), obj{"77": obj{"lib_path": servertest.Probe(t), "isolation": "none",
		"config": obj{"block": "destroy", "release": filepath.Join(dir, "never")}}}, "car_a")
	config["limits"] = obj{"stop_timeout_ms": 60000}
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	s.Signal(syscall.SIGINT)
	s.Signal(syscall.SIGINT)
	servertest.Eventually(t, "the process ends", func() bool {
		s.Signal(syscall.SIGINT)
		return !s.Running()
	})
	if code := s.Wait(); code != 130 {
		t.Errorf("exit code %d, expected 130", code)
	}
}
