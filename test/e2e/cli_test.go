package e2e

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
)

// noTrace fails the test when the output has what only a programmer understands
// (CLI-25).
func noTrace(t *testing.T, output string) {
	t.Helper()
	for _, bad := range []string{"goroutine ", "panic:", ".go:", "0x"} {
		if strings.Contains(output, bad) {
			t.Errorf("the output contains %q:\n%s", bad, output)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	broken := write("broken.json", "{\n  \"company_name\": \"a\",\n  oops\n}")
	two := write("two.json", `{"company_name": "A!", "mqtt_address": "localhost", "mqtt_port": "x", "cars": {"c": {}}, "common_modules": {}}`)
	misspelt := write("misspelt.json", `{"company_name": "a", "mqtt_adress": "localhost", "cars": {"c": {}}, "common_modules": {"1": {"builtin": "mission", "config": {"api_url": "http://localhost"}}}}`)
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string // parts of stderr
	}{
		{"unknown option", []string{"--nonsense"}, 2, []string{"error:", "--nonsense", "--help"}},
		{"too many arguments", []string{"a", "b"}, 2, []string{"one configuration file"}},
		{"two configurations", []string{"-c", "a", "b"}, 2, []string{"two configuration files"}},
		{"default path", nil, 1, []string{"config/config.json", "not found"}},
		{"missing file", []string{"-c", "nowhere.json"}, 1, []string{"nowhere.json", "not found"}},
		{"positional path", []string{"nowhere.json"}, 1, []string{"nowhere.json", "not found"}},
		{"a directory", []string{"-c", dir}, 1, []string{dir, "regular file"}},
		{"invalid JSON", []string{"-c", broken}, 1, []string{"broken.json:3:3"}},
		{"all errors at once", []string{"-c", two}, 1, []string{"company_name", "mqtt_port", "common_modules"}},
		{"misspelt key", []string{"-c", misspelt}, 1, []string{"mqtt_address: required", "did you mean mqtt_address?"}},
		{"TLS without files", []string{"-c", "config/config.json", "--tls"}, 1, []string{"config/config.json"}},
		{"tls and no-tls", []string{"--tls", "--no-tls"}, 2, []string{"tls"}},
		{"bench", []string{"bench", "growth", "--mosquitto"}, 2, []string{"external-server: error: bench is a program of its own: run `go run ./cmd/bench`"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, code := servertest.Run(t, dir, c.args...)
			if code != c.code {
				t.Errorf("exit code %d, expected %d", code, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr lacks %q:\n%s", want, stderr)
				}
			}
			noTrace(t, stdout+stderr)
		})
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--help"}, "--config"},
		{[]string{"-h"}, "check"},
		{[]string{"version"}, "external-server test go1."},
		{[]string{"config", "schema"}, `"$schema"`},
		{[]string{"completion", "bash"}, "complete"},
	} {
		stdout, stderr, code := servertest.Run(t, dir, c.args...)
		if code != 0 || !strings.Contains(stdout, c.want) || stderr != "" {
			t.Errorf("%v: exit code %d, stderr %q, stdout lacks %q:\n%.500s", c.args, code, stderr, c.want, stdout)
		}
	}
}

// --tls names what is missing, in the order of CLI-10.
func TestTLSFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := formatD("127.0.0.1:1", exampleModule(t), "car_a")
	path := filepath.Join(dir, "config.json")
	servertest.WriteConfig(t, path, config)
	_, stderr, code := servertest.Run(t, dir, "-c", path, "--tls")
	if i, j, k := strings.Index(stderr, "--ca"), strings.Index(stderr, "--cert)"), strings.Index(stderr, "--key"); code != 1 || i < 0 || j < i || k < j {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	certs := brokertest.NewCerts(t)
	_, stderr, code = servertest.Run(t, dir, "-c", path, "--tls", "--ca", certs.CAFile, "--cert", certs.Client.CertFile)
	if code != 1 || !strings.Contains(stderr, "--key") || strings.Contains(stderr, "--ca") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	_, stderr, code = servertest.Run(t, dir, "-c", path, "--tls", "--ca", certs.CAFile, "--cert", certs.Client.CertFile, "--key", "nowhere.pem")
	if code != 1 || !strings.Contains(stderr, "nowhere.pem") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	noTrace(t, stderr)
	if lines := strings.Count(strings.TrimSpace(stderr), "\n"); lines != 0 {
		t.Errorf("expected one line: %s", stderr)
	}
}

// check and the start refuse broken libraries in the same clear words.
func TestBrokenLibraries(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile(servertest.Probe(t))
	if err != nil {
		t.Fatal(err)
	}
	foreign := bytes.Clone(good)
	foreign[18] = 0xb7 // e_machine: AArch64
	for _, c := range []struct {
		name   string
		module obj
		want   []string
	}{
		{"absent", obj{"lib_path": filepath.Join(dir, "absent.so")}, []string{"common_modules.77.lib_path", "absent.so"}},
		{"no library", obj{"lib_path": file("text.so", []byte("hello"))}, []string{"common_modules.77", "text.so", "ELF"}},
		{"other architecture", obj{"lib_path": file("foreign.so", foreign)}, []string{"common_modules.77", "foreign.so", "AARCH64"}},
		{"missing symbols", obj{"lib_path": servertest.Probe(t, "-DPROBE_INCOMPLETE")}, []string{"common_modules.77", "lacks the function"}},
		{"wrong number", obj{"lib_path": servertest.Probe(t, "-DPROBE_NUMBER=5")}, []string{"common_modules.77: module", "reports module number 5 but is configured as module 77"}},
		{"init returns NULL", obj{"lib_path": servertest.Probe(t), "config": obj{"init": "null", "password": "s3cret-module"}}, []string{"common_modules.77", "init failed", "car_a"}},
	} {
		for _, isolation := range []string{"process", "none"} {
			t.Run(c.name+" "+isolation, func(t *testing.T) {
				t.Parallel()
				module := obj{"isolation": isolation}
				for k, v := range c.module {
					module[k] = v
				}
				path := filepath.Join(t.TempDir(), "config.json")
				servertest.WriteConfig(t, path, formatD("127.0.0.1:1", obj{"77": module}, "car_a"))
				for _, args := range [][]string{{"-c", path}, {"check", path}} {
					stdout, stderr, code := servertest.Run(t, dir, args...)
					if code != 1 {
						t.Errorf("%v: exit code %d", args, code)
					}
					for _, want := range c.want {
						if !strings.Contains(stdout+stderr, want) {
							t.Errorf("%v: output lacks %q:\n%s%s", args, want, stdout, stderr)
						}
					}
					if strings.Contains(stdout+stderr, "s3cret") {
						t.Errorf("%v: the output contains a secret:\n%s%s", args, stdout, stderr)
					}
					if strings.Contains(stderr, "goroutine ") || strings.Contains(stderr, "panic:") {
						t.Errorf("%v: stack trace:\n%s", args, stderr)
					}
				}
			})
		}
	}
}

// An interrupted check of a module says so, and finds no fault that it did not see.
func TestInterruptedModuleCheck(t *testing.T) {
	t.Parallel()
	settings := filepath.Join(t.TempDir(), "settings.json")
	write(t, settings, `{"number": 1000, "cycles": 1000000000}`) // it does not end by itself
	cmd := exec.Command(servertest.Binary(t), "module", "check", "--config", settings, servertest.Example(t))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	rest, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code says it
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit code %d, standard error %s", code, &stderr)
	}
	if all := first + string(rest); strings.Contains(all, "fail") || !strings.Contains(all, "rules: interrupted") {
		t.Errorf("the findings are\n%s", all)
	}
}

// check prints a table and does not need the broker.
func TestCheckOfAGoodConfiguration(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	servertest.WriteConfig(t, path, formatD("127.0.0.1:1", exampleModule(t), "car_a", "car_b"))
	stdout, stderr, code := servertest.Run(t, t.TempDir(), "check", path)
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, stderr %s", code, stderr)
	}
	for _, want := range []string{"CAR", "car_a", "car_b", "1000", "ok", "2 cars"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the table lacks %q:\n%s", want, stdout)
		}
	}
}
