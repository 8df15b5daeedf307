// Package testchild runs a test binary once more, as a process that its test kills. It
// imports nothing of the project and is imported by tests only.
package testchild

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// variable tells a test binary that it is such a process, and in which folder.
const variable = "TEST_CHILD_DIR"

// Run is the first thing in TestMain. In a process that Start has started it does the
// work in the folder and ends the process; the error it returns is said on standard
// output. In any other process it does nothing.
func Run(work func(dir string) error) {
	if dir := os.Getenv(variable); dir != "" {
		fmt.Println("error:", work(dir))
		os.Exit(1)
	}
}

// UntilKilled waits, in such a process, until the test kills it. It returns when the
// test has ended without that.
func UntilKilled() { _, _ = io.Copy(io.Discard, os.Stdin) }

// Process is a running child. It belongs to one goroutine.
type Process struct {
	t     testing.TB
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// Start starts the test binary as a child that works in the folder.
func Start(t testing.TB, dir string) *Process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil { // open as long as this process lives
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, cmd: cmd, lines: bufio.NewScanner(out)}
	t.Cleanup(func() { // of a test that has failed
		p.Kill()
		_ = cmd.Wait()
	})
	return p
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Line returns the next line of its standard output; false when there is no more.
func (p *Process) Line() (string, bool) {
	if !p.lines.Scan() {
		return "", false
	}
	return p.lines.Text(), true
}

// Kill sends SIGKILL. It does nothing when the process has ended.
func (p *Process) Kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
}

// WaitKilled waits for the end of the process and ends the test if it ended in another
// way than by SIGKILL. Its output must have been read.
func (p *Process) WaitKilled() {
	p.t.Helper()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		p.t.Fatalf("the process ended with %v, expected that it is killed", err)
	}
}
