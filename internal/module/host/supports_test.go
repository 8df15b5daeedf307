package host

import (
	"syscall"
	"testing"

	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// TestSupportsAsksAStoppedProcessOnce: the goroutine that asks serves many cars, and a gateway
// may name thousands of device types.
func TestSupportsAsksAStoppedProcessOnce(t *testing.T) {
	m := openModule(t, &testlog.Buffer{}, nil)
	pid := m.State().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deviceType := range uint32(2000) {
		if !m.Supports(prefetched + deviceType) {
			t.Fatalf("type %d counts as unsupported without an answer", prefetched+deviceType)
		}
	}
	questions := 0
	m.current.mu.Lock()
	for _, p := range m.current.pending {
		if p.op == "is_device_type_supported" {
			questions++
		}
	}
	m.current.mu.Unlock()
	if questions != 1 {
		t.Errorf("%d questions wait for the process, expected 1", questions)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the answers are those of the module", func() bool { return !m.Supports(5000) })
}
