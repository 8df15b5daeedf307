package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// TestReplacedWhileAContextIsOpened: the process is replaced between the answer to
// init and the moment in which the context is known. The next process, where init
// fails at first, is asked again until it has the context.
func TestReplacedWhileAContextIsOpened(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	dir := t.TempDir()
	path, null := filepath.Join(dir, "record"), filepath.Join(dir, "null")
	car := newInstance(m, 1, spec("car", path, "null_if="+null))
	m.mu.Lock()
	first := m.current
	m.mu.Unlock()
	must(t, car.attach(t.Context(), first, true))
	must(t, os.WriteFile(null, nil, 0o600))
	replace(t, m)
	must(t, m.register(car, first))
	testwait.Until(t, "the next process refuses", func() bool { return log.Has("context cannot be made in the new module process") })
	must(t, os.Remove(null))
	must(t, car.ForwardStatus(t.Context(), device("r"), []byte("late")))
	if got := filter(record(t, path), "forward_status"); !slices.Equal(got, []string{"forward_status car r late"}) {
		t.Errorf("got %q", got)
	}
}
