package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"external-server/internal/state/process"
)

// SignalFinal is the signal that stops a server for good, as SIGTERM stops it for the
// next start.
const SignalFinal = syscall.SIGUSR1

// unseenPoll is how often an endpoint is asked whose process cannot be seen.
const unseenPoll = 100 * time.Millisecond

// Stopping is a server that was told to stop.
type Stopping struct {
	client  *Client          // nil: it was a signal
	process *process.Process // nil: it cannot be seen from here
	id      process.ID
}

// Stop tells the server behind the endpoint to stop, and prints what becomes of its
// sessions. Away tells whether an error means that there is no endpoint.
func (c *Client) Stop(ctx context.Context, final bool, out io.Writer) (*Stopping, error) {
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/stop", nil, map[string]bool{"final": final}, nil)
	if err != nil {
		if no, ok := errors.AsType[*refused](err); ok && (no.Status == http.StatusNotFound || no.Status == http.StatusMethodNotAllowed) {
			return nil, errors.New("the running server is of a version that cannot be stopped in this way: send it SIGTERM")
		}
		return nil, err
	}
	defer resp.Body.Close()
	var told struct {
		Result  string     `json:"result"`
		Process process.ID `json:"process"`
	}
	if err := decode(resp.Body, &told); err != nil {
		return nil, fmt.Errorf("the answer of %s is not that of an admin endpoint: %w", c.base, err)
	}
	fmt.Fprintln(out, Clean(told.Result))
	s := &Stopping{client: c, id: told.Process}
	s.process, _ = process.Find(told.Process) // on another machine, or gone already
	return s, nil
}

// StopProcess tells the process to stop with a signal; description says for people which
// one it is.
func StopProcess(id process.ID, description string, final bool, out io.Writer) (*Stopping, error) {
	p, err := process.Find(id)
	if err != nil {
		return nil, fmt.Errorf("the server is %s, which cannot be seen from here (%w): stop it where it runs, in its container", Clean(description), err)
	}
	signal, name := syscall.SIGTERM, "SIGTERM"
	if final {
		signal, name = SignalFinal, "SIGUSR1, the final stop,"
	}
	if err := p.Signal(signal); err != nil {
		p.Close()
		return nil, err
	}
	fmt.Fprintf(out, "%s was sent to %s\n", name, Clean(description))
	return &Stopping{process: p, id: id}, nil
}

// Wait returns when the server has ended, or after the limit with an error that says what
// is waited for.
func (s *Stopping) Wait(ctx context.Context, limit time.Duration, notes io.Writer) error {
	if s.process != nil {
		defer s.process.Close()
	}
	late := fmt.Errorf("process %d has not ended within %v: its log says what it waits for, such as modules (limits.stop_timeout_ms)", s.id.PID, limit)
	bound, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	switch {
	case s.process != nil:
		fmt.Fprintf(notes, "waiting for process %d to end, for %v at most\n", s.id.PID, limit)
		if err := s.process.Wait(bound); err != nil {
			return err
		}
		fmt.Fprintf(notes, "process %d has ended\n", s.id.PID)
		return nil
	default:
		fmt.Fprintf(notes, "process %d cannot be seen from here: waiting for its admin endpoint to end, for %v at most\n", s.id.PID, limit)
		return s.client.awaitEnd(bound)
	}
}

// awaitEnd returns when the endpoint answers no more.
func (c *Client) awaitEnd(ctx context.Context) error {
	tick := time.NewTicker(unseenPoll)
	defer tick.Stop()
	for {
		_, err := c.Raw(ctx, "/healthz", nil)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, gone := errors.AsType[unreachable](err); gone {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
