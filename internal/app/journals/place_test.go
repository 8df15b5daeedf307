package journals

import (
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

	"external-server/internal/config"
	"external-server/internal/observe"
	"external-server/internal/session/record"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testneed"
)

// left leaves something to do for one car of each of two shards, and returns the cars and the
// path of the first one's journal.
func left(t *testing.T, cfg *config.Config) (one, other, path string) {
	t.Helper()
	one, other = "car", "another"
	j := open(t, cfg, func(observe.Event) {})
	if j.Number(id(other)) == j.Number(id(one)) {
		t.Fatal("both cars are of one shard")
	}
	leave(t, j, one)
	leave(t, j, other)
	n := j.Number(id(one))
	if err := j.Close(false); err != nil {
		t.Fatal(err)
	}
	return one, other, filepath.Join(cfg.StateDirectory, "shards", fmt.Sprintf("%02d", n))
}

// What stands in the place of one journal keeps no other journal from being resumed from.
func TestOneBadEntry(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"file":             func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"FIFO":             func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"dangling symlink": func(path string) error { return os.Symlink(path+"-gone", path) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &config.Config{Company: "company", StateDirectory: t.TempDir()}
			_, other, path := left(t, cfg)
			if err := errors.Join(os.RemoveAll(path), put(path)); err != nil {
				t.Fatal(err)
			}
			var told []observe.Event
			j := open(t, cfg, func(e observe.Event) { told = append(told, e) })
			if cars := j.Cars("company"); !slices.Equal(cars, []string{other}) || !j.Durable() || len(j.InService()) != shardCount {
				t.Errorf("cars %q, durable %v, %d shards", cars, j.Durable(), len(j.InService()))
			}
			if fault := j.Fault(); fault != "" || len(told) != 1 || j.SetAside()[asideDamaged] != 1 {
				t.Errorf("fault %q, set aside %v, told %+v", fault, j.SetAside(), told)
			}
			if err := j.Close(false); err != nil {
				t.Error(err)
			}
		})
	}
}

// recorder is a Service whose cars write down what they know.
type recorder struct {
	Service
	record func(shard int)
}

func (r recorder) Record(shard int) { r.record(shard) }

// A journal whose place cannot be freed is missing to its own cars alone. That is told as
// long as it lasts, and the journal begins when the place is free.
func TestOneShardWithoutJournal(t *testing.T) {
	cfg := &config.Config{Company: "company", StateDirectory: t.TempDir()}
	one, other, path := left(t, cfg)
	elsewhere := testneed.OtherFileSystem(t, cfg.StateDirectory)
	shards := filepath.Join(cfg.StateDirectory, "shards")
	to := filepath.Join(elsewhere, "shards") // from there nothing can be moved into the state directory
	if err := errors.Join(os.CopyFS(to, os.DirFS(shards)), os.RemoveAll(shards), os.Symlink(to, shards)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	j := open(t, cfg, func(observe.Event) {})
	if cars := j.Cars("company"); !slices.Equal(cars, []string{other}) || len(j.InService()) != shardCount {
		t.Errorf("cars %q, %d shards", cars, len(j.InService()))
	}
	if fault := j.Fault(); !strings.Contains(fault, path) || !strings.Contains(fault, "move "+path+" away") {
		t.Errorf("fault %q", fault)
	}
	s := j.Of(id(one))
	again := recorder{record: func(shard int) {
		if shard != s.Number {
			t.Errorf("shard %d records", shard)
		}
		s.Append(record.Begin(nil, id("new").String()).Forgotten())
	}}
	j.mend(s, again) // in vain
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if j.Fault() == "" {
		t.Error("the journal is whole again")
	}
	s.tried = s.tried.Add(-2 * journalRetry)
	j.mend(s, again) // begins anew
	j.mend(s, again) // sees it
	if fault := j.Fault(); fault != "" {
		t.Errorf("fault %q", fault)
	}
	leave(t, j, one)
	if err := j.Close(false); err != nil {
		t.Fatal(err)
	}
	j = open(t, cfg, func(observe.Event) {})
	if cars := j.Cars("company"); !slices.Contains(cars, one) || !slices.Contains(cars, other) {
		t.Errorf("cars %q", cars)
	}
	if err := j.Close(false); err != nil {
		t.Error(err)
	}
}

// A directory that does not tell when the cars were last served is one event, with the
// number of the journals that hold something and where they are.
func TestLostPage(t *testing.T) {
	cfg := &config.Config{Company: "company", StateDirectory: t.TempDir()}
	one, other, _ := left(t, cfg)
	if err := os.WriteFile(filepath.Join(cfg.StateDirectory, "alive"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var told []observe.Event
	j := open(t, cfg, func(e observe.Event) { told = append(told, e) })
	if len(told) != 1 || told[0].Count != 2 || !strings.HasSuffix(told[0].Text, "damaged-1") || j.SetAside()[asideDamaged] != 2 {
		t.Errorf("set aside %v, told %+v", j.SetAside(), told)
	}
	if cars := j.Cars("company"); len(cars) != 2 || !slices.Contains(cars, one) || !slices.Contains(cars, other) {
		t.Errorf("what is left to do: %q", cars) // modules get what they had not taken
	}
	if err := j.Close(false); err != nil {
		t.Error(err)
	}
}

// All journals that fail at once are one warning, and one line says that all can be used again
// when none has failed for a while.
func TestOneWarningForAllJournals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		j := New(Options{Logger: log.Logger(), OwnBroker: func() bool { return false }, Tell: func(observe.Event) {}})
		if err := j.Open(t.Context(), &config.Config{Company: "company", StateDirectory: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
		for round := 1; round <= 2; round++ {
			for range 3 {
				for _, s := range j.InService() {
					j.failed(s, errors.New("disk full"))
				}
				for _, s := range j.InService() {
					s.fault.Store(nil)
				}
				j.usable()
			}
			if n := strings.Count(log.String(), "level=WARN"); n != round {
				t.Errorf("%d warnings in round %d", n, round)
			}
			time.Sleep(journalRetry)
			j.failed(j.InService()[0], errors.New("disk full"))
			j.usable()
			j.InService()[0].fault.Store(nil)
			if n := strings.Count(log.String(), "can be used again"); n != round-1 {
				t.Errorf("%d times well although one has just failed", n)
			}
			time.Sleep(journalRetry)
			j.usable()
			j.usable()
			if n := strings.Count(log.String(), "can be used again"); n != round {
				t.Errorf("%d times well in round %d", n, round)
			}
		}
		if err := j.Close(false); err != nil {
			t.Error(err)
		}
	})
}

// Thousands of cars that are not configured any more, as those of another company, are one
// line.
func TestOneLineForCarsThatAreGone(t *testing.T) {
	cfg := &config.Config{Company: "company", StateDirectory: t.TempDir()}
	first := open(t, cfg, func(observe.Event) {})
	for n := range 500 {
		leave(t, first, fmt.Sprint("car", n))
	}
	if err := first.Close(false); err != nil {
		t.Fatal(err)
	}
	var log testlog.Buffer
	j := New(Options{Logger: log.Logger(), OwnBroker: func() bool { return false }, Tell: func(observe.Event) {}})
	if err := j.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	j.ForgetAllUnserved()
	if n := strings.Count(log.String(), "level="); n != 1 || !log.Has("level=WARN", "cars=500", "statuses=500", "company/car0") {
		t.Errorf("%d lines: %s", n, &log)
	}
	if err := j.Close(false); err != nil {
		t.Error(err)
	}
}
