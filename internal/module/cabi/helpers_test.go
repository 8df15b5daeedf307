//go:build cgo

package cabi

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testleak"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testleak.Settled(m)) }

const (
	probeSource   = "testdata/probe.c"
	exampleSource = "../../../modules/example/example_module.c"
	includeDir    = "../../../modules/include"
	probeNumber   = 77
)

var testCar = fleet.CarID{Company: "bringauto", Car: "virtual_vehicle"}

// build compiles a library; each call makes a file of its own, hence a library
// with counters of its own.
func build(t testing.TB, source string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "lib.so")
	args := append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-shared", "-fPIC", "-pthread",
		"-I" + includeDir, "-o", out, source}, flags...)
	if text, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return out
}

// probe is an open library with one context and its record.
type probe struct {
	t       *testing.T
	lib     *Library
	inst    module.Instance
	log     *testlog.Buffer
	record  string
	release string
}

// openProbe opens the probe library with the given "key=value" settings.
func openProbe(t *testing.T, settings ...string) *probe {
	t.Helper()
	p := newProbe(t)
	inst, err := p.lib.Open(t.Context(), p.spec(settings...))
	if err != nil {
		t.Fatal(err)
	}
	p.inst = inst
	return p
}

func newProbe(t *testing.T) *probe {
	t.Helper()
	p := &probe{t: t, log: &testlog.Buffer{}}
	p.record = filepath.Join(t.TempDir(), "record")
	p.release = filepath.Join(t.TempDir(), "release")
	logger := slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	lib, err := Open(build(t, probeSource), Options{Expect: probeNumber, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	p.lib = lib
	return p
}

func (p *probe) spec(settings ...string) module.InstanceSpec {
	spec := module.InstanceSpec{Car: testCar, PollTimeout: 20 * time.Millisecond, Config: []module.Pair{
		{Key: "company_name", Value: testCar.Company},
		{Key: "car_name", Value: testCar.Car},
		{Key: "record", Value: p.record},
		{Key: "release", Value: p.release},
	}}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		spec.Config = append(spec.Config, module.Pair{Key: key, Value: value})
	}
	return spec
}

// lines returns the record without the lines of init.
func (p *probe) lines() []string {
	p.t.Helper()
	text, err := os.ReadFile(p.record)
	if err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "init ") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

func (p *probe) has(prefix string) bool {
	for _, line := range p.lines() {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// waitFor waits until the record has a line that starts with prefix.
func (p *probe) waitFor(prefix string) {
	p.t.Helper()
	testwait.Until(p.t, "record line "+prefix, func() bool { return p.has(prefix) })
}

// letGo ends the block of the library.
func (p *probe) letGo() {
	p.t.Helper()
	if err := os.WriteFile(p.release, nil, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// closeClean closes everything and checks what the library counted: all memory
// came back and no two calls overlapped that must not.
func (p *probe) closeClean() {
	p.t.Helper()
	if err := p.inst.Close(p.t.Context()); err != nil {
		p.t.Errorf("Close: %v", err)
	}
	if err := p.lib.Close(); err != nil {
		p.t.Errorf("Library.Close: %v", err)
	}
	lines := p.lines()
	if len(lines) == 0 || lines[len(lines)-1] != "destroy held=0 violations=0" {
		p.t.Errorf("the record must end with a clean destroy:\n%s", strings.Join(lines, "\n"))
	}
}

// result of something that runs in the background.
type outcome struct {
	commands []fleet.Command
	err      error
}

func await(t *testing.T, results <-chan outcome) outcome {
	t.Helper()
	select {
	case r := <-results:
		return r
	case <-time.After(testwait.Patience):
		t.Fatal("a call did not come back")
		return outcome{}
	}
}
