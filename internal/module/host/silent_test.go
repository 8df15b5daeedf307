package host

import (
	"syscall"
	"testing"

	"external-server/internal/testlog"
	"external-server/internal/testwait"
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
	testwait.Until(t, "the silence is seen", func() bool { return m.State().Silent != "" })
	if s := m.State(); s.PID != pid || s.Restarts != 0 {
		t.Errorf("the process was given up first: %+v", s)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the process answers again", func() bool { return m.State().Silent == "" })
}
