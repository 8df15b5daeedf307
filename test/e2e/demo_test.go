package e2e

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/etcdtest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// The demo shows a person cars that connect, drive, obey, and a device of a module of
// their own, and ends with a summary. No car looks hung, and nothing is said
// by halves.
func TestDemo(t *testing.T) {
	t.Parallel()
	temporary := t.TempDir()
	demo := servertest.Start(t, servertest.Options{Dir: t.TempDir(), Args: []string{"demo", "--module", servertest.Example(t)}, Env: []string{"TMPDIR=" + temporary}})
	for _, want := range []string{ // as long as it takes on this machine
		"curl -s -X POST", "/v2/protocol/status/demo/car_b", "The dashboard: http://127.0.0.1:",
		"car_a    connected", "car_b    connected", "car_c    connected",
		"autonomy obeys: starts to", "drives to", "panel obeys: lamp",
		"is restarted while the cars drive", "is back", "the cars have noticed nothing: sessions lost 0",
		"a device of module 1000 joins", "its device gets a command of module 1000", "sends car_a a mission to ",
	} {
		demo.WaitLog(want)
	}
	if code := demo.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	text := demo.Log()
	if !strings.Contains(text, "Summary: 3 sessions") {
		t.Error("the demo does not say that each car had one session")
	}
	for _, not := range []string{"device leaves", "stop \n", "ERROR", "could not"} {
		if strings.Contains(text, not) {
			t.Errorf("the demo says %q", not)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
	nothingLeft(t, temporary)
}

// nothingLeft waits until no process and no file of a demo with that folder for temporary
// files is left.
func nothingLeft(t *testing.T, temporary string) {
	t.Helper()
	processesEnded(t, temporary)
	files, err := os.ReadDir(temporary)
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func processesEnded(t *testing.T, temporary string) {
	t.Helper()
	left := func() (out []string) {
		dirs, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			env, err := os.ReadFile(filepath.Join(dir, "environ"))
			if err == nil && bytes.Contains(env, []byte("TMPDIR="+temporary+"\x00")) {
				what, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // it may have just ended
				out = append(out, string(what))
			}
		}
		return out
	}
	testwait.Until(t, "all processes have ended", func() bool { return len(left()) == 0 })
}

// However the demo is ended, no process of it is left; after Ctrl-C no file either.
func TestDemoIsEnded(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			temporary := t.TempDir()
			cmd := exec.Command(servertest.Binary(t), "demo")
			cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			lines := bufio.NewScanner(out)
			for lines.Scan() && !strings.Contains(lines.Text(), "connected: session") {
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			told := false
			for lines.Scan() {
				told = told || strings.Contains(lines.Text(), "disconnected: disconnect notification")
			}
			err = cmd.Wait()
			if signal == syscall.SIGKILL { // its folder is left, as of everything that is killed
				dirs, err := filepath.Glob(filepath.Join(temporary, "*"))
				if err != nil {
					t.Fatal(err)
				}
				for _, dir := range dirs {
					defer os.RemoveAll(dir)
				}
				processesEnded(t, temporary)
				return
			}
			if err != nil || !told {
				t.Errorf("%v; a car was told: %v", err, told)
			}
			nothingLeft(t, temporary)
		})
	}
}

// With many cars the demo tells of three; ports that are taken are said, a port that was
// asked for is used or refused; a program takes part under its own number.
func TestDemoFlags(t *testing.T) {
	t.Parallel()
	python := testneed.PythonProtobuf(t)
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	if _, errs, code := servertest.Run(t, dir, "demo", "--port", port); code != 1 || !strings.Contains(errs, "the MQTT broker cannot listen at 127.0.0.1:"+port) {
		t.Errorf("a port that is taken: exit code %d: %s", code, errs)
	}
	wanted := []string{"30 simulated cars", "27 more drive tours", "car_c    connected",
		"a device of module 1002 joins", `reports to module 1002: {"pressed": true}`, `command of module 1002: {"lit_up": true}`}
	if usual, err := net.Listen("tcp", "127.0.0.1:1883"); err == nil { // else another program has it, and may leave it at any time
		defer usual.Close()
		wanted = append(wanted, "Port 1883 is taken: the MQTT broker listens at 127.0.0.1:")
	}
	demo := servertest.Start(t, servertest.Options{Dir: dir, Args: []string{"demo", "--cars", "30", "--status", `{"pressed": true}`,
		"--module", python + " " + filepath.Join(servertest.Root(), "modules/example-python/example_module.py")}})
	for _, want := range wanted {
		demo.WaitLog(want)
	}
	atLeast := func(text, pattern string, least int) bool {
		found := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if found == nil {
			return false
		}
		n, err := strconv.Atoi(found[1])
		return err == nil && n >= least
	}
	dashboard := regexp.MustCompile(`The dashboard: (http://[0-9.:]+)`).FindStringSubmatch(demo.Log())
	if dashboard == nil {
		t.Fatalf("the demo does not say where its dashboard is:\n%s", demo.Log())
	}
	testwait.Until(t, "all cars are connected", func() bool {
		return atLeast(get(t, dashboard[1]+"/metrics"), `(?m)^external_server_sessions_established_total (\d+)$`, 30)
	})
	if code := demo.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := demo.Log()
	if !atLeast(out, `Summary: (\d+) sessions`, 30) {
		t.Error("the demo does not say how many sessions there were")
	}
	if _, errs, code := servertest.Run(t, dir, "demo", "--cars", "1", "--seconds", "2"); code != 0 {
		t.Errorf("a demo of two seconds: exit code %d: %s", code, errs)
	}
	if strings.Contains(out, "car_d ") {
		t.Error("the demo tells of the fourth car")
	}
	if t.Failed() {
		t.Log(out)
	}
	for want, args := range map[string][]string{
		"501 cars: expected 1 to 500": {"--cars", "501"},
		"0 cars: expected 1 to 500":   {"--cars", "0"},
		"0 replicas: expected 1 to 5": {"--replicas", "0"},
		"6 replicas: expected 1 to 5": {"--replicas", "6"},
		"--seconds is":                {"--seconds", "-1"},
		"--status needs --module":     {"--status", "{}"},
		"did not start":               {"--module", "/bin/false"},
		"port 70000: expected":        {"--port", "70000"},
	} {
		if _, errs, code := servertest.Run(t, dir, append([]string{"demo"}, args...)...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit code %d: %s", args, code, errs)
		}
	}
}

// DEMO_SECONDS is how long the demo lasts, which ends by itself.
func TestDemoSeconds(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[string]struct {
		code int
		text string
	}{"soon": {2, "DEMO_SECONDS"}, "2": {0, "Summary: "}} {
		cmd := exec.Command(servertest.Binary(t), "demo")
		cmd.Env = append(os.Environ(), "DEMO_SECONDS="+seconds)
		text, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != want.code || !strings.Contains(string(text), want.text) {
			t.Errorf("%s: %v: %s", seconds, err, text)
		}
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
	nothingLeft(t, temporary)
}

// With several servers the demo kills one and stops another, and no car loses its session.
func TestDemoWithReplicas(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Path(t)
	temporary := t.TempDir()
	demo := servertest.Start(t, servertest.Options{Dir: t.TempDir(), Args: []string{"demo", "--replicas", "3", "--cars", "12"},
		Env: []string{etcdtest.Variable + "=" + etcd, "TMPDIR=" + temporary}})
	for _, want := range []string{ // as long as it takes on this machine
		"3 servers now share 12 simulated cars", "server_3  its dashboard", "car_a    connected", "server_3 is killed", "server_3 is started again",
		"server_1 is stopped in order", "server_1 is there again", "panel obeys: lamp",
	} {
		demo.WaitLog(want)
	}
	if code := demo.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	text := demo.Log()
	if !strings.Contains(text, "Summary: 12 sessions") {
		t.Error("the demo does not say that each car had one session")
	}
	if n := strings.Count(text, "the cars have noticed nothing: sessions lost 0"); n != 2 {
		t.Errorf("%d times the cars have noticed nothing", n)
	}
	for _, not := range []string{"ERROR", "broke the protocol"} {
		if strings.Contains(text, not) {
			t.Errorf("the demo says %q", not)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	nothingLeft(t, temporary)
}
