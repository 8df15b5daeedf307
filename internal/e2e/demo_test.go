package e2e

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/servertest"
	"external-server/internal/testwait"
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

// The demo whose reader goes away, as in "| head", ends by itself and leaves no
// files behind.
func TestDemoWithoutReader(t *testing.T) {
	t.Parallel()
	temporary := t.TempDir()
	cmd := exec.Command(servertest.Binary(t), "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	hung := time.AfterFunc(testwait.Patience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer hung.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the demo ended with %v: %s", err, errs.String())
	}
	left, err := os.ReadDir(temporary)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
