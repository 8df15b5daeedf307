package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// part is a process of the demo: the broker or the server. It ends when its standard
// input does, so that it cannot outlive the demo, whatever ends that.
type part struct {
	name  string
	cmd   *exec.Cmd
	input io.Closer
	done  chan struct{} // closed when the process has ended
	err   error         // of Wait; valid when done is closed
	said  *held
	bound opening
}

// opening is closed with the first line of a process: it has the ports that it was told
// to take. Something else may answer there before.
type opening chan struct{}

func (o opening) Write(b []byte) (int, error) {
	select {
	case <-o:
	default:
		close(o)
	}
	return len(b), nil
}

// held keeps what a process says until it is known whether that matters: one that finds
// its port taken is started anew.
type held struct {
	mu   sync.Mutex
	to   io.Writer
	text []byte
	open bool
}

func (h *held) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open {
		return h.to.Write(b)
	}
	if len(h.text) < 64<<10 {
		h.text = append(h.text, b...)
	}
	return len(b), nil
}

// pass lets everything through from now on, and what is kept too.
func (h *held) pass() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = true
	_, _ = h.to.Write(h.text) // there is no one else to tell
	h.text = nil
}

// partTimeout bounds the start and the end of a process.
const partTimeout = 30 * time.Second

// startPart starts a process of the demo. Ctrl-C reaches only the demo itself, which
// decides what ends when.
func startPart(opts *Options, name string, args ...string) (*part, error) {
	cmd := exec.Command(opts.Program, append([]string{"demo-part", name}, args...)...)
	said := &held{to: opts.Err}
	cmd.Stderr = said
	bound := make(opening)
	cmd.Stdout = bound
	cmd.WaitDelay = time.Second // for what has inherited the output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the %s does not start: %w", name, err)
	}
	p := &part{name: name, cmd: cmd, input: input, done: make(chan struct{}), said: said, bound: bound}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

var errEnded = errors.New("it has ended")

// ended is the error of a process that has ended without being asked to.
func (p *part) ended() error {
	if p.err != nil {
		return fmt.Errorf("the %s: %w: %w; what it said is above", p.name, errEnded, p.err)
	}
	return fmt.Errorf("the %s: %w", p.name, errEnded)
}

// wait waits until the process has its ports and ready says yes.
func (p *part) wait(ctx context.Context, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, partTimeout, fmt.Errorf("the %s is not ready after %v", p.name, partTimeout))
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for next := (<-chan struct{})(p.bound); ; {
		select {
		case <-next:
			next = nil
		case <-look.C:
		case <-p.done:
			return p.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if next == nil && ready(ctx) {
			p.said.pass()
			return nil
		}
	}
}

// stop asks the process to end, by a signal or, with nil, by the end of its input, and
// waits for it.
func (p *part) stop(signal os.Signal) error {
	if signal == nil {
		_ = p.input.Close() // fails when the process has ended
	} else if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("the %s cannot be stopped: %w", p.name, err)
	}
	late := time.NewTimer(partTimeout)
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	_ = p.input.Close()
	if p.err != nil {
		return fmt.Errorf("the %s: %w", p.name, p.err)
	}
	return nil
}

// serves tells whether the server behind the admin endpoint is connected to the broker.
func serves(admin string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
		if err != nil {
			return false
		}
		client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
}
