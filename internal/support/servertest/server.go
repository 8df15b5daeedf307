package servertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/testwait"
)

// Map is a JSON object of a configuration.
type Map = map[string]any

// Options of Start.
type Options struct {
	Binary string   // "": the one of Binary
	Config any      // encoded to a file and given with -c; nil: none
	Args   []string // after the configuration
	Env    []string // added to the environment
	Dir    string   // working directory; "": a temporary one
	Prefix []string // a command that runs the server, such as prlimit
}

// Server is a running server process.
type Server struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed when the process has ended
	// ConfigPath is the configuration file, for reloads.
	ConfigPath string
}

// Start runs the server until the test ends; a data race it finds fails the test.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s := &Server{t: t, done: make(chan struct{})}
	dir := opts.Dir
	if dir == "" {
		dir = t.TempDir()
	}
	args := append([]string(nil), opts.Prefix...)
	if opts.Binary == "" {
		opts.Binary = Binary(t)
	}
	args = append(args, opts.Binary)
	if opts.Config != nil {
		s.ConfigPath = filepath.Join(t.TempDir(), "config.json")
		WriteConfig(t, s.ConfigPath, opts.Config)
		args = append(args, "-c", s.ConfigPath)
	}
	args = append(args, opts.Args...)
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Dir = dir
	s.cmd.Env = append(append(os.Environ(), "GORACE=exitcode=66 atexit_sleep_ms=0"), opts.Env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("output of the server:\n%s", tail(s.Log(), 120))
		}
		if strings.Contains(s.Log(), "WARNING: DATA RACE") {
			t.Errorf("the server has a data race:\n%s", tail(s.Log(), 200))
		}
	})
	return s
}

// WriteConfig writes a configuration file.
func WriteConfig(t testing.TB, path string, config any) {
	t.Helper()
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// PID returns the id of the process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log returns everything the server has written to stdout and stderr.
func (s *Server) Log() string { return s.out.String() }

// Running tells whether the process is there.
func (s *Server) Running() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// WaitLog waits until the output contains the text.
func (s *Server) WaitLog(text string) {
	s.t.Helper()
	testwait.Until(s.t, fmt.Sprintf("the server logs %q", text), func() bool {
		return strings.Contains(s.Log(), text)
	})
}

// Signal sends a signal to the process.
func (s *Server) Signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatal(err)
	}
}

// Kill ends the process without a word (SIGKILL) and waits for it.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Stop sends SIGTERM and returns the exit code.
func (s *Server) Stop() int {
	s.t.Helper()
	s.Signal(syscall.SIGTERM)
	return s.Wait()
}

// Wait waits for the end of the process and returns the exit code, -1 for a
// signal.
func (s *Server) Wait() int {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(testwait.Patience):
		s.Signal(syscall.SIGABRT)
		<-s.done
		s.t.Fatalf("the server did not end:\n%s", tail(s.Log(), 200))
	}
	return s.cmd.ProcessState.ExitCode()
}

// Run runs a command of the binary to its end and returns stdout, stderr and the
// exit code.
func Run(t testing.TB, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(Binary(t), args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
