package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

func inWindow(m *Module) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range m.instances {
		i.mu.Lock()
		n += len(i.window.calls)
		i.mu.Unlock()
	}
	return n
}

// The process has many statuses of a car and ends: the one that it was given and may have
// begun is handed over again, the others for the first time, all in order.
func TestProcessEndsWithAWindow(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	b := &bystander{t: t, record: filepath.Join(t.TempDir(), "record")}
	b.worker = module.NewWorker(openCar(t, m, spec("car", b.record, "attack=forward_status:brief")), 66, module.WorkerOptions{Logger: log.Logger()})
	b.worker.Start()
	b.send(900)
	testwait.Until(t, "statuses under way together", func() bool { return inWindow(m) > 3 })
	replace(t, m)
	b.check()
	if n := m.State().Redelivered; n > 1 {
		t.Errorf("%d statuses were handed over again, expected one at most", n)
	}
	if n := strings.Count(log.String(), "under_way=\"forward_status for car car\""); n != 1 {
		t.Errorf("the line about the end does not name the one call that was under way\n%s", &log)
	}
}

// A process that is ending is not given a call any more: the next one gets it for the first
// time, and it is no suspect.
func TestEndingProcessIsNotAsked(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	path := filepath.Join(t.TempDir(), "record")
	car := openCar(t, m, spec("car", path)).(*instance)
	car.mu.Lock()
	c := car.at
	car.mu.Unlock()
	c.mu.Lock()
	c.ended = true // as finish does before it tells those who wait
	c.mu.Unlock()
	called := make(chan error, 1)
	go func() { called <- car.ForwardStatus(t.Context(), device("by"), []byte("status")) }()
	testwait.Until(t, "the call waits for the end of the process", func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*child).post")
	})
	c.kill()
	if err := <-called; err != nil {
		t.Error(err)
	}
	if n := m.State().Redelivered; n != 0 || log.Has("redelivered=true") {
		t.Errorf("%d calls count as handed over again\n%s", n, &log)
	}
	if got := len(filter(record(t, path), "forward_status")); got != 1 {
		t.Errorf("%d statuses were called, expected 1", got)
	}
}

// Each status has the time that a call may take for itself, also one that is in the
// process while others are called.
func TestWindowHasTime(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, func(o *Options) { o.CallTimeout = 2 * time.Second })
	car := openCar(t, m, spec("car", "", "attack=forward_status:slow")).(module.Forwarder)
	const statuses = 60 // 3 s
	results := make(chan error, statuses)
	for range statuses {
		if !car.Forward(t.Context(), device("by"), nil, func(err error) { results <- err }) {
			t.Fatal("a status is not taken")
		}
	}
	for n := range statuses {
		if err := <-results; err != nil {
			t.Error(err)
		}
		if slow := m.State().Slow; slow != "" && n > 50 {
			t.Errorf("%s counts as slow", slow)
		}
	}
	if s := m.State(); s.Restarts != 0 {
		t.Errorf("the process was replaced: %s", s.LastExit)
	}
	taken, together := 0, 0 // a test that is slow itself can hand over many, one after the other
	for car.Forward(t.Context(), device("by"), nil, func(error) { results <- nil }) {
		taken++
		together = max(together, inWindow(m))
	}
	if taken < 1 || together > 2 {
		t.Errorf("a module that needs 50 ms for a status is given %d together, of %d", together, taken)
	}
	for range taken {
		<-results
	}
}

// A context is closed while statuses are under way: they are called first.
func TestCloseWithAWindow(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	path := filepath.Join(t.TempDir(), "record")
	car := openCar(t, m, spec("car", path, "attack=forward_status:slow"))
	for n := range 5 {
		if !car.(module.Forwarder).Forward(t.Context(), device("by"), fmt.Appendf(nil, "s%d", n), func(err error) {
			if err != nil {
				t.Error(err)
			}
		}) {
			t.Fatalf("status %d is not taken", n)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
	defer cancel()
	must(t, car.Close(ctx))
	if got := len(filter(record(t, path), "forward_status")); got != 5 {
		t.Errorf("%d statuses were called, expected 5", got)
	}
	if car.(module.Forwarder).Forward(t.Context(), device("by"), nil, nil) {
		t.Error("a closed context takes a status")
	}
}

// What a context cannot be given together is refused, and left to ForwardStatus.
func TestWindowIsBounded(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	gate := filepath.Join(t.TempDir(), "gate")
	car := openCar(t, m, spec("car", "", "attack=forward_status:gate", "gate="+gate)).(module.Forwarder)
	results := make(chan error, maxWindow)
	forward := func(d fleet.Device, size int) bool {
		return car.Forward(t.Context(), d, make([]byte, size), func(err error) { results <- err })
	}
	if forward(device(""), 1) {
		t.Error("a device without role is taken")
	}
	if forward(device("by"), maxWindowStatus+1) {
		t.Error("a large status is taken")
	}
	large := 0
	for forward(device("by"), maxWindowStatus) {
		large++
	}
	if large != maxWindowBytes/maxWindowStatus {
		t.Errorf("%d statuses of %d bytes are under way", large, maxWindowStatus)
	}
	small := 0
	for forward(device("by"), 0) {
		small++
	}
	if large+small != maxWindow {
		t.Errorf("%d statuses are under way", large+small)
	}
	must(t, os.WriteFile(gate, nil, 0o600))
	for range maxWindow {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
