package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/state/process"
	"external-server/internal/support/testwait"
)

// TestInUse: a second process waits, says for whom, and takes over when the first
// one is gone; when it may not wait any longer the error says so, too.
func TestInUse(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	s := openShard(t, d, 0)
	put(t, s, "one")
	s.Serving(true)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, 10)
	opts.Waiting = func(holder string) { told <- holder }
	result := make(chan error)
	go func() {
		_, err := Open(ctx, opts)
		result <- err
	}()
	holder := <-told
	for _, w := range []string{fmt.Sprintf("process %d on ", os.Getpid()), "since ", "version 1.2.3"} {
		if !strings.Contains(holder, w) {
			t.Errorf("%q does not say %q", holder, w)
		}
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), holder) {
		t.Errorf("the end of waiting: %v", err)
	}
	opened := make(chan *Dir)
	go func() {
		d, err := Open(t.Context(), opts)
		if err != nil {
			t.Error(err)
		}
		opened <- d
	}()
	<-told
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	next := <-opened
	defer func() {
		if err := next.Close(false); err != nil {
			t.Error(err)
		}
	}()
	if down, known := next.Down(); !known || down > testwait.Patience || !next.Clean() {
		t.Errorf("down for %v, known %v, clean %v", down, known, next.Clean())
	}
	want(t, openShard(t, next, 0).Replayed(), "one")
	if len(told) > 0 {
		t.Errorf("told again: %s", <-told)
	}
}

// TestLockFileReplaced: removing the lock file does not let two processes in, nor make
// them wait for different files for ever.
func TestLockFileReplaced(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	if err := os.WriteFile(filepath.Join(opts.Dir, "lock"), []byte("{\"host\":\"\\u001b[31m\",\"pid\":1}"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	opts.Waiting = func(holder string) {
		if strings.Contains(holder, "\x1b") {
			t.Errorf("a line of the log has %q", holder)
		}
		cancel()
	}
	if _, err := Open(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
}

// TestHolderFile: what is in the lock file is bounded and cannot forge lines.
func TestHolderFile(t *testing.T) {
	h := holder{ID: process.ID{PID: 1, Started: 2}, Host: "a\nb" + strings.Repeat("x", 500), Since: time.Unix(0, 0).UTC(), Version: "\x1b[2J"}
	if s := h.String(); strings.ContainsAny(s, "\n\x1b") || len(s) > 300 {
		t.Errorf("%q", s)
	}
	if b, err := json.Marshal(h); err != nil || len(b) > 1000 {
		t.Error(err)
	}
}
