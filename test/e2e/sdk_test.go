package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/support/servertest"
)

const brokenModule = `package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/fleet-protocol/external-server/sdk/module"
	"github.com/fleet-protocol/external-server/sdk/moduletest"
)

type broken struct{ module.Queue }

func (*broken) Number() int32                                                          { return 7 }
func (*broken) Supports(deviceType uint32) bool                                        { return deviceType == 1 }
func (*broken) Open(context.Context, module.Car) (module.Context, error)               { return &broken{}, nil }
func (*broken) DeviceConnected(context.Context, module.Device) error                   { return nil }
func (*broken) DeviceDisconnected(context.Context, module.Device, module.Reason) error { return nil }
func (*broken) StatusError(context.Context, module.Device, []byte) error               { return nil }
func (*broken) CommandDelivered(context.Context, module.Command) error                 { return nil }
func (*broken) Close(context.Context) error                                            { return nil }
func (*broken) Status(context.Context, module.Device, []byte) error {
	fmt.Println("a status has come")
	return nil
}

func TestMain(m *testing.M) { moduletest.Main(m, &broken{}) }

func TestRules(t *testing.T) { moduletest.Run(t, moduletest.Target{Cycles: 10}) }
`

// TestModuleTest: in a folder outside of the project, the tests of a module fail with
// the rule that it breaks and with what it wrote, and tell what is missing.
func TestModuleTest(t *testing.T) {
	t.Parallel()
	sdk := filepath.Join(servertest.Root(), "sdk")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "broken_test.go"), []byte(brokenModule), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(server string, args ...string) (string, error) {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "EXTERNAL_SERVER="+server)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{
		{"mod", "init", "example.com/broken"},
		{"mod", "edit", "-require=github.com/fleet-protocol/external-server/sdk@v0.0.0", "-replace=github.com/fleet-protocol/external-server/sdk=" + sdk},
		{"mod", "tidy"},
	} {
		if out, err := run("", args...); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	tests := map[string]struct {
		server string
		want   []string
	}{
		"rule":      {servertest.Binary(t), []string{"--- FAIL: TestRules/MT-13", "device that never connected", "--- PASS: TestRules/MT-14", "a status has come"}},
		"no server": {filepath.Join(dir, "missing"), []string{"EXTERNAL_SERVER names no program"}},
		"other":     {"/bin/echo", []string{"has made no report"}},
	}
	for name, test := range tests {
		out, err := run(test.server, "test", "-v", ".")
		if err == nil {
			t.Errorf("%s: the tests passed\n%s", name, out)
		}
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: the output lacks %q:\n%s", name, want, out)
			}
		}
	}
}
