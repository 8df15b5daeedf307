package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"external-server/internal/servertest"
)

// The demo shows a person cars that connect, drive, obey, and a device that
// comes and goes, and ends by itself with a summary.
func TestDemo(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(servertest.Binary(t), "demo", "--module", servertest.Example(t))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "DEMO_SECONDS=12")
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, want := range []string{
		"curl -s -X POST", "/v2/protocol/status/demo/car_b", "The dashboard: http://127.0.0.1:",
		"car_a    connected", "car_b    connected", "car_c    connected",
		"autonomy obeys: starts to", "drives to", "panel obeys: lamp",
		"a button device joins", "the button device leaves", "Summary: 3 sessions",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

func TestDemoSecondsAreChecked(t *testing.T) {
	cmd := exec.Command(servertest.Binary(t), "demo")
	cmd.Env = append(os.Environ(), "DEMO_SECONDS=soon")
	text, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(text), "DEMO_SECONDS") || cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("%v: %s", err, text)
	}
}
