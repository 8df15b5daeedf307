package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/httpapi"
	"external-server/internal/module/spool"
	"external-server/internal/support/testlog"
)

// down is an API that never answers.
func down(ctx context.Context, _ []httpapi.Message) error {
	<-ctx.Done()
	return ctx.Err()
}

func stop(t *testing.T, i *Instance) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := i.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestSpool: what waits when the server stops is posted by the next run, in
// order and before anything newer; nothing of it counts as lost.
func TestSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		opts := Options{Builtin: IO, API: &faultyAPI{post: down}, SpoolDirectory: t.TempDir(), Logger: log.Logger()}
		var want []string
		for round := range 3 {
			i := open(t, opts)
			first := 10 * (round + 1)
			forward(t, i, "a", first, first+1)
			if err := i.ForwardError(t.Context(), device(2, "b"), []byte(`{"x":1}`)); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("a[%d]", first), fmt.Sprintf("a[%d]", first+1), `b{"x":1}!`)
			if s := i.Stats(); s.Queued != 3*(round+1) || s.Spooled != s.Queued || s.QueuedBytes == 0 || s.OldestQueued.IsZero() {
				t.Errorf("round %d: %+v", round, s)
			}
			stop(t, i)
			if s := i.Stats(); s.Lost != 0 {
				t.Errorf("lost: %+v", s)
			}
		}
		if !strings.Contains(log.String(), "6 statuses") && !strings.Contains(log.String(), "statuses=6") {
			t.Errorf("the log does not tell what was left: %s", log.String())
		}
		r := &recorder{}
		opts.API = &faultyAPI{post: r.post}
		i := open(t, opts)
		forward(t, i, "c", 99, 99)
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, stored := r.all()
		var devices []string
		for _, s := range stored {
			if strings.HasPrefix(s, "a") || strings.HasPrefix(s, "b") {
				devices = append(devices, s)
			}
		}
		slices.Sort(want) // by device, each in its own order
		if byDevice := slices.Sorted(slices.Values(devices)); !slices.Equal(byDevice, want) || stored[len(stored)-1] != "c[99]" {
			t.Errorf("arrived %q, want %q and c[99] last", stored, want)
		}
		if a := slices.DeleteFunc(slices.Clone(stored), func(s string) bool { return s[0] != 'a' }); !slices.IsSorted(a) {
			t.Errorf("order of device a: %q", a)
		}
		if s := i.Stats(); s.Queued != 0 || s.Posted != 10 {
			t.Errorf("%+v", s)
		}
		i = open(t, opts) // nothing comes twice
		if s := i.Stats(); s.Queued != 0 {
			t.Errorf("after everything was posted: %+v", s)
		}
	})
}

// TestSpoolKeepsTime: a status of an earlier run has the time at which it
// was accepted.
func TestSpoolKeepsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{Builtin: IO, API: &faultyAPI{post: down}, SpoolDirectory: t.TempDir()}
		i := open(t, opts)
		forward(t, i, "a", 1, 1)
		accepted := time.Now()
		stop(t, i)
		time.Sleep(time.Hour)
		var at int64
		opts.API = &faultyAPI{post: func(_ context.Context, m []httpapi.Message) error {
			at = m[0].Timestamp
			return nil
		}}
		i = open(t, opts)
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if at != accepted.Unix() {
			t.Errorf("timestamp %d, want %d", at, accepted.Unix())
		}
	})
}

// TestSpoolIsBounded: a full spool holds back like a full queue.
func TestSpoolIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := &recorder{answer: func(int, []httpapi.Message) error { <-gate; return nil }}
		dir := t.TempDir()
		i := open(t, Options{Builtin: IO, API: &faultyAPI{post: r.post}, SpoolDirectory: dir, SpoolMaxBytes: 1000})
		n := 0
		for ; ; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := i.ForwardStatus(ctx, device(2, "a"), []byte("[1]"))
			cancel()
			if err != nil {
				break
			}
		}
		if n < 5 || n > 20 {
			t.Errorf("%d statuses in 1000 bytes", n)
		}
		if s := i.Stats(); s.QueuedBytes > 1000 || s.Queued != n || s.Spooled != n {
			t.Errorf("%+v", s)
		}
		close(gate)
		forward(t, i, "a", 2, 2)
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := i.Stats(); s.Posted != uint64(n+1) {
			t.Errorf("posted %d, want %d", s.Posted, n+1)
		}
	})
}

// TestFullDisk: with the disk full, statuses are kept in memory with one warning,
// counted, and posted in order; then the spool is used again.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		gate := make(chan struct{})
		r := &recorder{answer: func(int, []httpapi.Message) error { <-gate; return nil }}
		m, err := New(Options{Builtin: IO, API: &faultyAPI{post: r.post}, SpoolDirectory: t.TempDir(), Logger: log.Logger()})
		if err != nil {
			t.Fatal(err)
		}
		i := openIn(t, m)
		forward(t, i, "a", 1, 2)
		if n, _, err := m.SpoolFault(); n != 0 || err != nil {
			t.Errorf("faults before: %d, %v", n, err)
		}
		working := i.queue.spool
		if err := working.Close(); err != nil { // from now on every call fails
			t.Fatal(err)
		}
		forward(t, i, "a", 3, 5)
		if s := i.Stats(); s.SpoolFailures != 3 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), "kept in memory"); n != 1 {
			t.Errorf("%d warnings: %s", n, log.String())
		}
		if n, name, err := m.SpoolFault(); n != 1 || name != car.Car || err == nil {
			t.Errorf("faults: %d, %q, %v", n, name, err)
		}
		close(gate)
		synctest.Wait()
		if _, stored := r.all(); !slices.Equal(stored[len(stored)-3:], []string{"a[3]", "a[4]", "a[5]"}) {
			t.Errorf("arrived %q", stored)
		}
	})
}

// TestSpoolInUse: the instance that replaces another one, as with a reload, works
// in memory until the other has let the spool go. Then it uses the spool itself.
func TestSpoolInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{Builtin: IO, API: &faultyAPI{post: down}, SpoolDirectory: t.TempDir()}
		old := open(t, opts)
		forward(t, old, "a", 1, 1)
		r := &recorder{}
		opts.API = &faultyAPI{post: r.post}
		i := open(t, opts)
		forward(t, i, "a", 2, 2)
		synctest.Wait()
		stop(t, old)
		time.Sleep(time.Minute)
		if _, stored := r.all(); !slices.Equal(stored, []string{"a[2]", "a[1]"}) {
			t.Errorf("arrived before anything new came: %q", stored)
		}
		forward(t, i, "a", 3, 3)
		if s := i.Stats(); s.SpoolFailures != 1 {
			t.Errorf("a status did not go to the spool: %+v", s)
		}
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, stored := r.all(); !slices.Equal(stored, []string{"a[2]", "a[1]", "a[3]"}) {
			t.Errorf("arrived %q", stored)
		}
	})
}

// TestHeirPostsTheSpool: what a replaced instance left is posted, in order, although
// the car sends nothing more.
func TestHeirPostsTheSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{Builtin: IO, API: &faultyAPI{post: down}, SpoolDirectory: t.TempDir()}
		old := open(t, opts)
		forward(t, old, "a", 1, 5)
		r := &recorder{}
		opts.API = &faultyAPI{post: r.post}
		heir := open(t, opts)
		time.Sleep(time.Hour) // the predecessor takes its time
		stop(t, old)
		time.Sleep(2 * spoolRetryMax)
		if _, stored := r.all(); !slices.Equal(stored, []string{"a[1]", "a[2]", "a[3]", "a[4]", "a[5]"}) {
			t.Errorf("arrived %q", stored)
		}
		if s := heir.Stats(); s.Queued != 0 || s.Posted != 5 {
			t.Errorf("%+v", s)
		}
	})
}

// TestSpoolFreeAtTheEnd: an instance that is closed before it noticed that its spool
// is free keeps there what it has in memory.
func TestSpoolFreeAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{Builtin: IO, API: &faultyAPI{post: down}, SpoolDirectory: t.TempDir()}
		old := open(t, opts)
		forward(t, old, "a", 1, 1)
		heir := open(t, opts)
		forward(t, heir, "a", 2, 2)
		stop(t, old)
		stop(t, heir)
		if s := heir.Stats(); s.Lost != 0 {
			t.Errorf("%+v", s)
		}
		r := &recorder{}
		opts.API = &faultyAPI{post: r.post}
		next := open(t, opts)
		if err := next.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, stored := r.all(); strings.Join(stored, " ") != "a[1] a[2]" {
			t.Errorf("arrived %q", stored)
		}
	})
}

func TestSpoolCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := New(Options{Builtin: IO, API: &faultyAPI{}, SpoolDirectory: file})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(t.Context(), spec()); err == nil || !strings.Contains(err.Error(), "spool_directory") || !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a spool below a file: %v", err)
	}
}

// TestSpoolUnreadableForAMoment: what cannot be read from the spool just now is
// posted, in order, when it can.
func TestSpoolUnreadableForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		gate := make(chan struct{})
		r := &recorder{answer: func(int, []httpapi.Message) error { <-gate; return nil }}
		dir := t.TempDir()
		i := open(t, Options{Builtin: IO, API: &faultyAPI{post: r.post}, SpoolDirectory: dir, SpoolMaxBytes: 80_000, Logger: log.Logger()})
		const all = 3 * windowEntries
		forward(t, i, "a", 1, all) // in several files; the poster waits with a first window, of as many as it saw
		segments, err := filepath.Glob(filepath.Join(dir, "*", "*", "*", "*.spool"))
		if err != nil || len(segments) < 2 {
			t.Fatalf("segments %q, %v", segments, err)
		}
		first := segments[0]
		if err := errors.Join(os.Rename(first, first+".away"), os.Symlink(filepath.Base(first), first)); err != nil {
			t.Fatal(err)
		}
		close(gate)
		time.Sleep(time.Minute)
		if s := i.Stats(); s.Posted > windowEntries || s.Queued != all-int(s.Posted) || s.SpoolDamaged != 0 || !log.Has("level=WARN", "spool cannot be read") {
			t.Errorf("%+v, log %s", s, &log)
		}
		// In one step: the poster may look at this very moment, and a file that is missing is lost.
		if err := os.Rename(first+".away", first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s := i.Stats(); s.Posted != all || s.SpoolDamaged != 0 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestForeignRecords: what is in the spool and is no status is skipped, counted
// and costs nothing else.
func TestForeignRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		dir := t.TempDir()
		opts := Options{Builtin: IO, API: &faultyAPI{post: down}, SpoolDirectory: dir, Logger: log.Logger()}
		i := open(t, opts)
		forward(t, i, "a", 1, 1)
		stop(t, i)
		s, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "acme", "car_1", "module-2")})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []string{"", "x", "\x01\x00", "\x02\x00{}", "\x01\x00\x00\x00\x01r\x01n{"} {
			if err := s.Append([]byte(b)); err != nil {
				t.Fatal(err)
			}
		}
		e := entry{device: device(2, "a"), at: time.Now(), data: []byte("[2]")}
		if err := s.Append(e.appendRecord(nil)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		r := &recorder{}
		opts.API = &faultyAPI{post: r.post}
		i = open(t, opts)
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, stored := r.all(); !slices.Equal(stored, []string{"a[1]", "a[2]"}) {
			t.Errorf("arrived %q", stored)
		}
		if n := i.Stats().SpoolDamaged; n != 5 {
			t.Errorf("%d damaged records, want 5", n)
		}
	})
}

// TestDryRunNeedsAWritableSpool: a folder that the server could not use is found
// without making anything in it.
func TestDryRunNeedsAWritableSpool(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{dir: "", file: "is not a directory", filepath.Join(dir, "none"): "create it first"}
	if os.Geteuid() != 0 { // root may write anywhere
		locked := filepath.Join(dir, "locked")
		if err := os.Mkdir(locked, 0o500); err != nil {
			t.Fatal(err)
		}
		tests[locked] = "cannot be written to by this user"
	}
	for dir, want := range tests {
		m, err := New(Options{Builtin: IO, API: &faultyAPI{}, SpoolDirectory: dir, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		i, err := m.Open(t.Context(), spec())
		switch {
		case want == "" && err == nil:
			stop(t, i.(*Instance))
		case want == "" || err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
	if found, err := filepath.Glob(filepath.Join(dir, "acme*")); err != nil || len(found) != 0 {
		t.Errorf("made in the folder: %v, %v", found, err)
	}
}
