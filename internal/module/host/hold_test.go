package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

type fetched struct {
	commands []fleet.Command
	err      error
}

// hold begins a poll that is held.
func hold(ctx context.Context, i module.Instance) <-chan fetched {
	results := make(chan fetched, 1)
	go func() {
		commands, err := i.(module.Holder).FetchCommands(ctx, module.Held)
		results <- fetched{commands, err}
	}()
	return results
}

// requests is how many requests the process has been sent.
func requests(m *Module) uint64 {
	m.mu.Lock()
	c := m.current
	m.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := uint64(0)
	for id, p := range c.pending {
		if p.op == opPoll {
			n = max(n, id)
		}
	}
	return n
}

// One request outlasts many timeouts of the library. It ends with commands, with its
// caller, whose later commands are kept for the next one, and with the context.
func TestHeldPoll(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	waits := filepath.Join(t.TempDir(), "waits")
	car := openCar(t, m, spec("car", "", "waits="+waits))
	if !car.(module.Holder).Holds() || !m.HoldsPolls() {
		t.Fatal("the process does not know polls that are held")
	}
	ctx, cancel := context.WithCancel(t.Context())
	results := hold(ctx, car)
	testwait.Until(t, "the poll is under way", func() bool { return requests(m) != 0 })
	first := requests(m)
	testwait.Until(t, "the library's wait has timed out three times", func() bool { return len(record(t, waits)) > 3 })
	if _, err := m.HeapBytes(ctx); err != nil { // the process answers beside it
		t.Fatal(err)
	}
	if now := requests(m); now != first {
		t.Errorf("the process was asked again: request %d after %d", now, first)
	}
	must(t, car.ForwardStatus(ctx, device("r"), []byte("command:one")))
	if got := <-results; got.err != nil || len(got.commands) != 1 || string(got.commands[0].Data) != "one" {
		t.Errorf("got %v, %v", got.commands, got.err)
	}

	results = hold(ctx, car)
	testwait.Until(t, "the poll is under way", func() bool { return requests(m) != 0 })
	cancel()
	if got := <-results; !errors.Is(got.err, context.Canceled) {
		t.Errorf("got %v, %v", got.commands, got.err)
	}
	testwait.Until(t, "the poll has ended in the process", func() bool { return requests(m) == 0 })

	results = hold(t.Context(), car)
	testwait.Until(t, "the poll is under way", func() bool { return requests(m) != 0 })
	must(t, car.Close(t.Context()))
	if got := <-results; got.err != nil || len(got.commands) != 0 {
		t.Errorf("got %v, %v", got.commands, got.err)
	}
}

// What the library has already is handed out by a short request.
func TestBriefPoll(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	s := spec("car", "")
	s.PollTimeout = time.Hour
	car := openCar(t, m, s).(module.Holder)
	if commands, err := car.FetchCommands(t.Context(), module.Brief); err != nil || len(commands) != 0 {
		t.Errorf("got %v, %v", commands, err)
	}
	must(t, car.ForwardStatus(t.Context(), device("r"), []byte("command:one")))
	if commands, err := car.FetchCommands(t.Context(), module.Brief); err != nil || len(commands) != 1 {
		t.Errorf("got %v, %v", commands, err)
	}
	must(t, car.Close(t.Context()))
}

// A poll that is held finds the next process by itself.
func TestHeldPollSurvivesTheProcess(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	car := openCar(t, m, spec("car", ""))
	results := hold(t.Context(), car)
	testwait.Until(t, "the poll is under way", func() bool { return requests(m) != 0 })
	pid := m.State().PID
	process, err := os.FindProcess(pid)
	must(t, err)
	must(t, process.Kill())
	testwait.Until(t, "the process is replaced", func() bool { return m.State().Ready && m.State().PID != pid })
	must(t, car.ForwardStatus(t.Context(), device("r"), []byte("command:one")))
	if got := <-results; got.err != nil || len(got.commands) != 1 {
		t.Errorf("got %v, %v", got.commands, got.err)
	}
}

// A wait that does not come back is reported although its poll has no timeout; what a
// process says of other requests is ignored, and the lines are bounded.
func TestOverdueWaits(t *testing.T) {
	var log testlog.Buffer
	c := &child{log: log.Logger(), pending: map[uint64]*pending{
		7: {op: opPoll, car: "stuck", limit: time.Second, held: true}, 8: {op: "init", car: "other"}}}
	var said []*pb.Overdue
	for id := range uint64(30) {
		said = append(said, &pb.Overdue{Id: id, WaitingMs: 62_000})
	}
	c.overduePolls(said)
	if n := strings.Count(log.String(), "exceeds its timeout by far"); n != 1 || !log.Has("car=stuck", "timeout=1s", "age=1m2s") {
		t.Errorf("log:\n%s", &log)
	}
	for id := range uint64(30) {
		c.pending[id] = &pending{op: opPoll, car: fmt.Sprint(id), held: true}
	}
	c.overduePolls(said)
	if n := strings.Count(log.String(), "exceeds its timeout by far"); n != 1+maxOverdue {
		t.Errorf("%d lines", n)
	}
}

// EndPolls makes the process answer the poll that is held, also one that begins in the
// same moment; none is held afterwards.
func TestEndPolls(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	for round := range 10 {
		car := openCar(t, m, spec("car", ""))
		results := hold(t.Context(), car)
		if round%2 == 0 {
			testwait.Until(t, "the poll is under way", func() bool { return requests(m) != 0 })
		}
		car.(module.Holder).EndPolls()
		if got := <-results; got.err != nil || len(got.commands) != 0 {
			t.Errorf("got %v, %v", got.commands, got.err)
		}
		if got := <-hold(t.Context(), car); got.err != nil || len(got.commands) != 0 {
			t.Errorf("the next poll: got %v, %v", got.commands, got.err)
		}
		must(t, car.Close(t.Context()))
	}
}
