// Package process tells a process of this machine from a later one with the same
// number, and watches it end: what asks a server to stop must not meet a stranger.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrGone: there is no such process, or none that can be seen from here: it has ended,
// or it runs on another machine or in another container.
var ErrGone = errors.New("no such process on this machine")

// poll is how often a process is looked at that has to end.
const poll = 50 * time.Millisecond

// ID is a process for as long as the machine runs.
type ID struct {
	PID int `json:"pid"`
	// Started is when it was started: clock ticks since the machine was. The kernel
	// gives a number to another process sooner or later, but not with the same start.
	Started uint64 `json:"started"`
}

// Self is this process.
func Self() (ID, error) {
	id := ID{PID: os.Getpid()}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return id, err
	}
	_, id.Started, err = parse(stat)
	return id, err
}

// Space is where an ID holds: the numbers of processes begin anew with the machine, and
// each container can have its own.
type Space struct {
	Boot      string `json:"boot"`
	Processes string `json:"processes"` // the namespace
}

// Here is the space of this process.
func Here() (s Space, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return s, err
	}
	s.Boot = strings.TrimSpace(string(boot))
	s.Processes, err = os.Readlink("/proc/self/ns/pid")
	return s, err
}

// Ended tells for certain that a process of this space has ended and holds nothing any
// more. One that still dies has not ended.
func Ended(id ID) bool {
	if id.PID <= 0 || id.Started == 0 {
		return false
	}
	dir := "/proc/" + strconv.Itoa(id.PID)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil { // it may be hidden
		return errors.Is(syscall.Kill(id.PID, 0), syscall.ESRCH)
	}
	state, started, err := parse(stat)
	if err != nil || started != id.Started {
		return err == nil
	}
	if state != 'Z' && state != 'X' {
		return false
	}
	threads, err := os.ReadDir(dir + "/task") // one whose parent has not looked; others may still hold files
	return err == nil && len(threads) <= 1
}

// Process is one that was found.
type Process struct {
	id     ID
	handle *os.Process
}

// Find returns the process, or ErrGone.
func Find(id ID) (*Process, error) {
	if id.PID <= 0 || id.Started == 0 {
		return nil, ErrGone
	}
	// First the handle, then the look: so the handle is of the process that was seen.
	handle, err := os.FindProcess(id.PID)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", id.PID, err)
	}
	p := &Process{id: id, handle: handle}
	if !p.Alive() {
		p.Close()
		return nil, ErrGone
	}
	return p, nil
}

// Alive tells whether the process has not ended.
func (p *Process) Alive() bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.id.PID) + "/stat")
	if err != nil {
		return false
	}
	state, started, err := parse(stat)
	return err == nil && started == p.id.Started && state != 'Z' && state != 'X'
}

// Signal sends a signal. Errors say whom this user may not signal.
func (p *Process) Signal(s syscall.Signal) error {
	err := p.handle.Signal(s)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrProcessDone):
		return ErrGone
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("process %d belongs to another user: run the command as that user or as root", p.id.PID)
	}
	return fmt.Errorf("signal to process %d: %w", p.id.PID, err)
}

// Wait returns when the process has ended, or the cause of the end of ctx.
func (p *Process) Wait(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for p.Alive() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// Close forgets the process.
func (p *Process) Close() { _ = p.handle.Release() }

// parse reads state and start from /proc/PID/stat. The second field is the name of the
// program in parentheses, in which anything may be.
func parse(stat []byte) (state byte, started uint64, err error) {
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const begun = 22 - 3 // field 22, counted from the third
	if len(fields) <= begun || len(fields[0]) != 1 {
		return 0, 0, fmt.Errorf("/proc/PID/stat cannot be read: %.100q", text)
	}
	started, err = strconv.ParseUint(fields[begun], 10, 64)
	return fields[0][0], started, err
}
