package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"external-server/internal/support/tied"
)

// startTimeout bounds the wait for a child to serve.
const startTimeout = 60 * time.Second

// process is a child of a benchmark.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	dir   string
	rest  string // of the ready line
	done  chan struct{}
	log   tailBuffer
}

// spawn starts this program as the child and waits until it serves. self is the
// command line of the hidden sub-command.
func spawn(ctx context.Context, self []string, c Child) (*process, error) {
	dir, err := os.MkdirTemp("", "external-server-bench-")
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	p := &process{dir: dir, done: make(chan struct{})}
	p.cmd = exec.Command(self[0], append(append([]string(nil), self[1:]...), string(text))...)
	p.cmd.Stderr = &p.log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	wait, err := tied.Start(p.cmd, syscall.SIGKILL)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	line := make(chan string, 1)
	go func() {
		defer close(p.done)
		r := bufio.NewReader(out)
		text, _ := r.ReadString('\n') // an end without line is seen below
		line <- text
		_, _ = io.Copy(io.Discard, r)
		_ = wait() // its end is what matters
	}()
	limit := time.NewTimer(startTimeout)
	defer limit.Stop()
	select {
	case text := <-line:
		rest, ok := strings.CutPrefix(strings.TrimSpace(text), readyLine)
		if !ok {
			p.stop()
			return nil, fmt.Errorf("the %s process did not start: %s", c.Role, p.log.String())
		}
		p.rest = strings.TrimSpace(rest)
		return p, nil
	case <-limit.C:
		err = fmt.Errorf("the %s process does not serve after %v: %s", c.Role, startTimeout, p.log.String())
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.stop()
	return nil, err
}

// stop ends the child, at last by force, and removes its files.
func (p *process) stop() {
	_ = p.stdin.Close()
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	_ = os.RemoveAll(p.dir)
}

// usage is what a process has used, and those that it has started with it.
type usage struct {
	cpu     time.Duration
	module  time.Duration // part of cpu: of the processes that it has started
	rss     uint64        // bytes
	threads int
}

// tick is the unit of CPU time in /proc, which is 1/100 s on Linux.
const tick = 10 * time.Millisecond

func (p *process) usage() (usage, error) {
	sum, err := usageOf(p.cmd.Process.Pid)
	if err != nil {
		return usage{}, fmt.Errorf("a measured process has ended: %w: %s", err, p.log.String())
	}
	return sum, nil
}

// usageOf sums up a process and its descendants.
func usageOf(pid int) (usage, error) {
	u, err := usageOfOne(pid)
	if err != nil {
		return usage{}, err
	}
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return usage{}, err
	}
	for _, path := range children {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended meanwhile
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return usage{}, fmt.Errorf("%s: %w", path, err)
			}
			v, err := usageOf(child)
			if err != nil {
				return usage{}, err
			}
			u.cpu, u.module, u.rss, u.threads = u.cpu+v.cpu, u.module+v.cpu, u.rss+v.rss, u.threads+v.threads
		}
	}
	return u, nil
}

func usageOfOne(pid int) (usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return usage{}, err
	}
	// Fields 14 and 15 after the name, which may contain anything but ends with ')'.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return usage{}, fmt.Errorf("%s/stat has %d fields", dir, len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	u := usage{cpu: time.Duration(user+system) * tick}
	if exact := schedCPU(dir); exact > 0 {
		u.cpu = exact
	}
	status, err3 := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch name {
		case "VmRSS":
			kb, err := strconv.ParseUint(f[0], 10, 64)
			u.rss, err3 = kb<<10, errors.Join(err3, err)
		case "Threads":
			n, err := strconv.Atoi(f[0])
			u.threads, err3 = n, errors.Join(err3, err)
		}
	}
	return u, errors.Join(err1, err2, err3)
}

// schedCPU returns the CPU time of the threads of a process as the scheduler counts
// it; 0: it does not say. The figures in stat are sampled in many kernels, which
// misses much of a process that wakes up often and briefly.
func schedCPU(dir string) (sum time.Duration) {
	tasks, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return 0
	}
	for _, t := range tasks {
		text, err := os.ReadFile(filepath.Join(dir, "task", t.Name(), "schedstat"))
		if err != nil {
			continue // a thread that has ended meanwhile
		}
		first, _, _ := strings.Cut(string(text), " ")
		if ns, err := strconv.ParseInt(first, 10, 64); err == nil {
			sum += time.Duration(ns)
		}
	}
	return sum
}

// tailBuffer keeps the end of what is written.
type tailBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	if len(b.text) > 8192 {
		b.text = b.text[len(b.text)-4096:]
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(string(b.text))
}

func splitAddress(address string) (string, int, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("broker address %q: expected host:port: %w", address, err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return "", 0, fmt.Errorf("broker address %q: expected host:port: %w", address, err)
	}
	return host, n, nil
}
