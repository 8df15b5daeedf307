package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestFindAndWait(t *testing.T) {
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	self, err := Self()
	if err != nil || self.Started == 0 {
		t.Fatal(self, err)
	}
	id := ID{PID: child.Process.Pid}
	for started := self.Started; ; started++ { // the child was started a moment later
		id.Started = started
		if p, err := Find(id); err == nil {
			p.Close()
			break
		}
		if started > self.Started+1_000_000 {
			t.Fatal("the child is not found")
		}
	}
	p, err := Find(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := p.Wait(ended); err == nil || err.Error() != "enough" {
		t.Errorf("Wait returned %v while the process lives", err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// It is not waited for by its parent yet: what is left is no process any more.
	if err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	_ = child.Wait()
	if _, err := Find(id); !errors.Is(err, ErrGone) {
		t.Errorf("Find returned %v for a process that has ended", err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("Signal returned %v for a process that has ended", err)
	}
}

// A process with the same number that was started at another time is another one.
func TestNumberOfAnother(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	self.Started++
	if _, err := Find(self); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
}

// Only a process that is gone, or that nothing but its parent's look keeps, has ended.
func TestEnded(t *testing.T) {
	self, err := Self()
	if err != nil || Ended(self) {
		t.Errorf("this process has ended, %v", err)
	}
	for _, id := range []ID{{}, {PID: self.PID}, {Started: 1}} {
		if Ended(id) {
			t.Errorf("%+v has ended", id)
		}
	}
	if !Ended(ID{PID: self.PID, Started: self.Started + 1}) {
		t.Error("another one with this number has not ended")
	}
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	id := ID{PID: child.Process.Pid}
	if _, id.Started, err = parse(stat); err != nil || Ended(id) {
		t.Errorf("the child has ended, %v", err)
	}
	p, err := Find(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !Ended(id) {
		t.Error("a child that nobody has waited for has not ended")
	}
	_ = child.Wait()
	if !Ended(id) {
		t.Error("a child that is gone has not ended")
	}
}

func TestSpace(t *testing.T) {
	here, err := Here()
	if err != nil || here.Boot == "" || here.Processes == "" {
		t.Errorf("%+v, %v", here, err)
	}
}

func TestParse(t *testing.T) {
	rest := strings.Repeat(" 1", 18) + " 4711 0"
	state, started, err := parse([]byte("12 (a) b) (c) S" + rest))
	if err != nil || state != 'S' || started != 4711 {
		t.Errorf("got %c %d %v", state, started, err)
	}
	for _, bad := range []string{"", "12", "12 (a) S 1 2", "12 (a)"} {
		if _, _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
