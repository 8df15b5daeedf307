// Package moduletest checks in go test whether a module keeps the rules of the module
// interface, as the command "external-server module check" does: it runs the command,
// so the rules and the processes are those of the server that will run the module.
//
//	func TestMain(m *testing.M) { moduletest.Main(m, myModule{}) }
//
//	func TestRules(t *testing.T) {
//		moduletest.Run(t, moduletest.Target{Number: 1001, Status: `{"pressed": true}`})
//	}
//
// The server's program is the one that the environment variable EXTERNAL_SERVER names,
// or external-server in the PATH.
package moduletest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleet-protocol/external-server/sdk/module"
)

// ServerEnv names the environment variable with the path of the server's program.
const ServerEnv = "EXTERNAL_SERVER"

// Exchange is a status and the command that the module answers it with.
type Exchange struct {
	Status  string `json:"status"`
	Command string `json:"command"`
}

// Target is a module to check and what must be known about it. The zero value is the
// module of Main.
type Target struct {
	// Command is the program and its arguments. Without one, and without Library, it is
	// the test program itself, see Main.
	Command []string
	// Library is the path of a shared library (.so), instead of a program.
	Library string
	// Number is the module number that it must report; 0: any.
	Number int32
	// Config is a configuration that it must accept, without company_name and car_name.
	Config []module.Pair
	// Status is a status that one of its devices may send; default "{}".
	Status string
	// Conversation are statuses and the commands that they cause, in order.
	Conversation []Exchange
	// Cycles is how often a context is made and closed; default 1000. The module of
	// Main has a default of 100 with the race detector, whose own memory grows.
	Cycles int
}

// Main is for TestMain. It serves the module when the server has started the test
// program as a module; otherwise it runs the tests. It does not return.
func Main(m *testing.M, mod module.Module) {
	if !module.Started() {
		os.Exit(m.Run())
	}
	if err := module.Serve(mod); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// report is what the command prints with --json.
type report struct {
	Findings []struct {
		Rule    string        `json:"rule"`
		Text    string        `json:"text"`
		Spec    string        `json:"spec"`
		Outcome string        `json:"outcome"` // pass, fail or skipped
		Detail  string        `json:"detail"`
		Took    time.Duration `json:"took_ns"`
	} `json:"findings"`
	Interrupted bool `json:"interrupted"`
}

// Run checks the module. Each rule is a subtest with the rule's name, such as MT-1. The
// rules are listed in docs/modules.md of the server.
func Run(t *testing.T, target Target) {
	t.Helper()
	r, output, err := check(t, target)
	if err != nil {
		t.Fatal(err)
	}
	failed := false
	for _, f := range r.Findings {
		t.Run(f.Rule, func(t *testing.T) {
			t.Logf("%s [%s], took %v", f.Text, f.Spec, f.Took.Round(time.Millisecond))
			switch f.Outcome {
			case "pass":
				if f.Detail != "" {
					t.Log(f.Detail)
				}
			case "skipped":
				t.Skip(f.Detail)
			default:
				failed = true
				t.Error(f.Detail)
			}
		})
	}
	if failed && output != "" {
		t.Logf("output of the module:\n%s", output)
	}
	if r.Interrupted {
		t.Error("the check was interrupted: rules that were skipped may be broken")
	}
}

// check runs the command. output is what the module wrote, with the command's own
// messages.
func check(t *testing.T, target Target) (r report, output string, err error) {
	server, err := findServer()
	if err != nil {
		return r, "", err
	}
	what := target.Command
	switch {
	case target.Library != "" && len(what) > 0:
		return r, "", errors.New("the target has a library and a command; set one of them")
	case target.Library != "":
		what = []string{target.Library}
	case len(what) == 0:
		self, err := os.Executable()
		if err != nil {
			return r, "", err
		}
		what = []string{self}
		if raced && target.Cycles == 0 {
			target.Cycles = 100
		}
	}
	settings, err := target.settings()
	if err != nil {
		return r, "", err
	}
	file := filepath.Join(t.TempDir(), "check.json")
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		return r, "", err
	}
	cmd := exec.CommandContext(t.Context(), server, append([]string{"module", "check", "--json", "--verbose", "-c", file, "--"}, what...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	output = strings.TrimSpace(stderr.String())
	// A broken rule makes the command fail, with a report.
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || len(r.Findings) == 0 {
		return r, output, fmt.Errorf("%s module check has made no report: %w\n%s", server, errors.Join(runErr, err), output)
	}
	return r, output, nil
}

func findServer() (string, error) {
	if path := os.Getenv(ServerEnv); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("%s names no program: %w", ServerEnv, err)
		}
		return path, nil
	}
	path, err := exec.LookPath("external-server")
	if err != nil {
		return "", fmt.Errorf("the check is made by the server's program, which was not found: "+
			"put external-server into the PATH, or its path into the environment variable %s: %w", ServerEnv, err)
	}
	return path, nil
}

// settings is the file for the command. The order of the configuration counts (MOD-8),
// so it is not made from a map.
func (t Target) settings() ([]byte, error) {
	var config bytes.Buffer
	config.WriteByte('{')
	for i, p := range t.Config {
		key, err := json.Marshal(p.Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(p.Value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			config.WriteByte(',')
		}
		config.Write(key)
		config.WriteByte(':')
		config.Write(value)
	}
	config.WriteByte('}')
	return json.Marshal(struct {
		Number       int32           `json:"number"`
		Config       json.RawMessage `json:"config"`
		Status       string          `json:"status,omitempty"`
		Conversation []Exchange      `json:"conversation,omitempty"`
		Cycles       int             `json:"cycles,omitempty"`
	}{t.Number, config.Bytes(), t.Status, t.Conversation, t.Cycles})
}
