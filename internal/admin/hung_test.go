package admin_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/logging"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
)

// event waits for an event of that kind and reason, from the start on, and returns its text.
func (r *rig) event(kind, reason string) (text string) {
	r.t.Helper()
	events := r.stream("/api/v1/events?after=0")
	defer events.close()
	ev := events.next(func(ev sent) bool { return ev.kind == kind && ev.data["reason"] == reason })
	text, _ = ev.data["text"].(string)
	return text
}

// A module process that hangs makes the server not ready, long before the process is
// given up, and is an event.
func TestHungModuleIsNotReady(t *testing.T) {
	library := servertest.Example(t)
	r := newRig(t, func(s settings) {
		s["common_modules"] = settings{"1000": settings{"lib_path": library}}
	}, "a")
	process := func() (pid int) {
		var list struct {
			Modules []struct{ Process struct{ PID int } }
		}
		r.get("/api/v1/modules", &list)
		return list.Modules[0].Process.PID
	}
	pid := process()
	r.wait("readyz to be ready", func() bool { return r.do("GET", "/readyz", "").status == 200 })
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	r.wait("readyz to say that the process hangs", func() bool {
		a := r.do("GET", "/readyz", "")
		return a.status == 503 && strings.Contains(a.text(), library+": not ready: its process hangs: it does not answer")
	})
	r.event("module", "does not answer")
	if now := process(); now != pid {
		t.Errorf("the process was replaced before that was told: %d, now %d", pid, now)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.wait("readyz to be ready again", func() bool { return r.do("GET", "/readyz", "").status == 200 })
}

// A log file on a full disk makes the server not ready, and is an event; so is its return.
func TestFullDiskOfTheLogIsNotReady(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "test.log")
	if err := os.Symlink("/dev/full", file); err != nil {
		t.Fatal(err)
	}
	r := newRigWithLog(t, nil, logging.Sink{Use: true, Dir: dir}, "a")
	r.wait("readyz to name the log", func() bool {
		a := r.do("GET", "/readyz", "")
		return a.status == 503 && strings.Contains(a.text(), "log file: not ready: ") && strings.Contains(a.text(), "no space left on device")
	})
	if text := r.event("fault", "log file fails"); !strings.Contains(text, "no space left on device") {
		t.Error(text)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.wait("readyz to be ready again", func() bool { return r.do("GET", "/readyz", "").status == 200 })
	r.event("fault", "log file works again")
}

// A file that was broken by hand is an event before anybody reloads it.
func TestBrokenFileIsAnEvent(t *testing.T) {
	testneed.Time(t)
	r := newRig(t, nil, "a")
	s := defaults(r.dir, "a")
	delete(s, "company_name")
	r.write(s)
	if text := r.event("config", "file has an error"); !strings.Contains(text, "company_name") || !strings.Contains(text, r.file) {
		t.Error(text)
	}
	if a := r.do("GET", "/readyz", ""); a.status != 200 {
		t.Errorf("what is in force is served on: %d %s", a.status, a.text())
	}
	r.write(defaults(r.dir, "a"))
	r.wait("the log to say that it is in order", func() bool { return r.log.Has("has no error any more") })
}
