package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"external-server/internal/module"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// A process that hangs is seen long before it is given up, and so is its return.
func TestSilentProcessIsSeen(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	pid := m.State().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	testwait.Until(t, "the silence is seen", func() bool { return m.State().Silent })
	if s := m.State(); s.PID != pid || s.Restarts != 0 {
		t.Errorf("the process was given up first: %+v", s)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the process answers again", func() bool { return !m.State().Silent })
}

// A call that takes its time, as one that waits for a network, is told, and is no
// silence: the process answers, and other cars are served. A module may wait for
// commands as long as it likes.
func TestSlowCallIsNoSilence(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	waits := openCar(t, m, spec("waits", "", "attack=wait_for_command:block"))
	ctx, cancel := context.WithCancel(t.Context())
	polled := make(chan struct{})
	go func() { defer close(polled); poll(ctx, waits) }()
	testwait.Until(t, "the poll is inside the library", func() bool { return log.Has("about to block") })
	gate := filepath.Join(t.TempDir(), "gate")
	slow := openCar(t, m, spec("slow", "", "attack=forward_status:gate", "gate="+gate))
	other := openCar(t, m, spec("other", ""))
	done := make(chan error, 1)
	go func() { done <- slow.ForwardStatus(t.Context(), device("a"), []byte("{}")) }()
	testwait.Until(t, "the call is slow, and the process answers", func() bool {
		s := m.State()
		return s.Slow == "forward_status for car slow" && !s.Silent && s.Ready
	})
	must(t, other.ForwardStatus(t.Context(), device("a"), []byte("{}")))
	must(t, os.WriteFile(gate, nil, 0o600))
	must(t, <-done)
	testwait.Until(t, "no call is slow", func() bool { return m.State().Slow == "" })
	cancel()
	<-polled
	bound, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := waits.Close(bound); !errors.Is(err, module.ErrStuck) {
		t.Errorf("Close: %v", err)
	}
}
