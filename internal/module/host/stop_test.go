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

	"external-server/internal/module"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// TestStoppedProcessDoesNotHoldUpTheStop: what has kept its context waiting gets no
// more time.
func TestStoppedProcessDoesNotHoldUpTheStop(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	car := openCar(t, m, spec("car", "", "attack=forward_status:stop"))
	result := make(chan error)
	go func() { result <- car.ForwardStatus(context.Background(), device("r"), nil) }()
	testwait.Until(t, "the process is stopped", func() bool { return processState(t, m.State().PID) == "T" })
	bound, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := car.Close(bound); !errors.Is(err, module.ErrStuck) {
		t.Errorf("Close: %v", err)
	}
	if grace := m.grace(); grace != 0 {
		t.Errorf("it gets %v more", grace)
	}
	must(t, m.Close())
	<-result
}

func processState(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, after, _ := strings.Cut(string(text), ") ")
	state, _, _ := strings.Cut(after, " ")
	return state
}

// TestRetired: while the server stops, a process is replaced for the sake of its
// contexts and of nothing else.
func TestRetired(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	path := filepath.Join(t.TempDir(), "record")
	car := openCar(t, m, spec("car", path))
	m.Retire()
	replace(t, m)
	must(t, car.ForwardStatus(t.Context(), device("r"), []byte("accepted")))
	must(t, car.Close(t.Context()))
	restart(m)
	testwait.Until(t, "it is not replaced", func() bool { return log.Has("not replaced") })
	must(t, m.Close())
	if s := m.State(); s.Restarts != 1 {
		t.Errorf("%d processes were replaced", s.Restarts)
	}
}

// TestCloseWithStuckCall: the module can be closed whatever happens inside.
func TestCloseWithStuckCall(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	car := openCar(t, m, spec("car", "", "attack=forward_status:block"))
	result := make(chan error)
	go func() { result <- car.ForwardStatus(context.Background(), device("r"), nil) }()
	testwait.Until(t, "the call is inside the library", func() bool { return log.Has("about to block") })
	must(t, m.Close())
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("error is %v", err)
	}
	if err := car.Close(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Close: %v", err)
	}
	if _, err := m.Open(t.Context(), spec("other", "")); !errors.Is(err, ErrClosed) {
		t.Errorf("Open: %v", err)
	}
}
