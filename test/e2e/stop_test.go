package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
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
	testwait.Until(t, "the process ends", func() bool {
		s.Signal(syscall.SIGINT)
		return !s.Running()
	})
	if code := s.Wait(); code != 130 {
		t.Errorf("exit code %d, expected 130", code)
	}
}

// A stop that is asked for while modules are still initialised is as orderly as
// any other: nothing failed.
func TestStopWhileStarting(t *testing.T) {
	for _, isolation := range []string{"process", "none"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			record := filepath.Join(dir, "record")
			s := servertest.Start(t, servertest.Options{Config: formatD("127.0.0.1:1", obj{"77": obj{
				"lib_path": servertest.Probe(t), "isolation": isolation,
				"config": obj{"record": record, "block": "init", "release": filepath.Join(dir, "never")},
			}}, "car_a")})
			testwait.Until(t, "the module is being initialised", func() bool {
				text, _ := os.ReadFile(record)
				return strings.Contains(string(text), "blocked init")
			})
			if code := s.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if log := s.Log(); strings.Contains(log, "error:") || !strings.Contains(log, "stopped before it served") {
				t.Errorf("the log does not tell of an orderly stop:\n%s", log)
			}
		})
	}
}

// The reader of standard error may go away, as in "2>&1 | head" or when a log
// daemon is restarted; cars are served on and the stop is orderly.
func TestReaderOfTheLogGoesAway(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	config := formatD(m.Address(), exampleModule(t), "car_a")
	config["logging"] = obj{
		"console": obj{"level": "DEBUG", "use": true},
		"file":    obj{"level": "INFO", "use": true, "path": dir},
	}
	logged := func(text string) func() bool {
		return func() bool {
			log, _ := os.ReadFile(filepath.Join(dir, "external_server.log"))
			return strings.Contains(string(log), text)
		}
	}
	servertest.WriteConfig(t, path, config)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(servertest.Binary(t), path)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	_ = w.Close()
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	testwait.Until(t, "the server is subscribed", logged("connected to the broker"))
	car := startCar(t, open(m), "car_a")
	car.report(`{"pressed": false}`, button)
	car.await(1, 1, 1)
	testwait.Until(t, "the file tells what became of the console", logged("log cannot be written"))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v, expected an orderly stop", err)
	}
}
