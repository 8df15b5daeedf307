package host

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testleak"
	"external-server/internal/support/testlog"
)

// TestMain is also the host of a library: ForLibrary starts this very program.
func TestMain(m *testing.M) {
	exitAtSecondSignal()
	RunIfHost()
	if len(os.Args) >= 2 && os.Args[1] == "test-child" {
		testChild(os.Args[2:])
	}
	goleak.VerifyTestMain(testleak.Settled(m), goleak.Cleanup(func(code int) {
		if path, err := attackLibrary(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		os.Exit(code)
	}))
}

// exitAtSecondSignal is what the program around a host of a library does with
// signals: it must not count for the host.
func exitAtSecondSignal() {
	if len(os.Args) < 2 || os.Args[1] != hostCommand {
		return
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		<-signals
		os.Exit(130)
	}()
}

var attackLibrary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "attack")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "libattack.so")
	text, err := exec.Command("gcc", "-std=gnu11", "-O1", "-g", "-shared", "-fPIC", "-pthread", "-w",
		"-I../../../modules/include", "-o", out, "testdata/attack.c").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("gcc: %w\n%s", err, text)
	}
	return out, nil
})

func library(t testing.TB) string {
	t.Helper()
	path, err := attackLibrary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// openModule opens the attack library in a process of its own.
func openModule(t testing.TB, log *testlog.Buffer, change func(*Options)) *Module {
	t.Helper()
	opts := ForLibrary(library(t), Options{Expect: 66, Logger: log.Logger(), BackoffMin: time.Millisecond,
		BackoffMax: 20 * time.Millisecond, CallTimeout: 30 * time.Second})
	if change != nil {
		change(&opts)
	}
	m, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func spec(car, record string, settings ...string) module.InstanceSpec {
	s := module.InstanceSpec{Car: fleet.CarID{Company: "company", Car: car}, PollTimeout: 50 * time.Millisecond,
		Config: []module.Pair{{Key: "company_name", Value: "company"}, {Key: "car_name", Value: car}, {Key: "record", Value: record}}}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		s.Config = append(s.Config, module.Pair{Key: key, Value: value})
	}
	return s
}

func openCar(t testing.TB, m *Module, s module.InstanceSpec) module.Instance {
	t.Helper()
	i, err := m.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func device(role string) fleet.Device {
	return fleet.Device{Module: 66, Type: 1, Role: role, Name: "Name " + role}
}

// record returns the lines that the module wrote about a car.
func record(t testing.TB, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}
