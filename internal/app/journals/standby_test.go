package journals

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/config"
	"external-server/internal/observe"
	"external-server/internal/support/testlog"
)

// A process that has the directory and is at work is waited for as long as it takes: two
// servers would end each other's sessions. One that is halted is waited for a while.
func TestStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := &config.Config{Company: "company", StateDirectory: t.TempDir()}
		first := open(t, cfg, func(observe.Event) {})
		first.InService()[0].Serving(true)
		var log testlog.Buffer
		second := New(Options{Logger: log.Logger(), OwnBroker: func() bool { return false }, Tell: func(observe.Event) {}})
		opened := make(chan error, 1)
		go func() { opened <- second.Open(t.Context(), cfg) }()
		time.Sleep(10 * standbyTimeout)
		select {
		case err := <-opened:
			t.Fatalf("it does not wait: %v", err)
		default:
		}
		if !log.Has("level=WARN", "goes on waiting", "process") || strings.Count(log.String(), "the state directory is in use") != 1 {
			t.Errorf("told: %s", &log)
		}
		if err := first.Close(false); err != nil {
			t.Fatal(err)
		}
		if err := <-opened; err != nil || !second.Durable() {
			t.Errorf("when the other has ended: %v", err)
		}
		if err := second.Close(false); err != nil {
			t.Error(err)
		}
		lock, err := os.OpenFile(filepath.Join(cfg.StateDirectory, "lock"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // as one that is halted
			t.Fatal(err)
		}
		third := New(Options{Logger: slog.New(slog.DiscardHandler), OwnBroker: func() bool { return false }, Tell: func(observe.Event) {}})
		began := time.Now()
		err = third.Open(t.Context(), cfg)
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "does not do its work") || took < standbyTimeout || took > 2*standbyTimeout {
			t.Errorf("after %v: %v", took, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := third.Open(ctx, cfg); err == nil || time.Since(began) > 3*standbyTimeout {
			t.Errorf("a stop while it waits: %v", err)
		}
	})
}
