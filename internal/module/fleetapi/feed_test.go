package fleetapi

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/module"
	"external-server/internal/support/testwait"
)

// TestFeed starts and stops feeds of many cars while commands are posted: each
// command of a feed that was running all the time comes once and in order, a stop
// does not wait for the poll, and nothing is delivered after it.
func TestFeed(t *testing.T) {
	const cars, commands = 20, 15
	server, _ := embed(t, filepath.Join(t.TempDir(), "api.db"), "127.0.0.1:0", time.Hour)
	a := server.API()
	m, err := New(Options{Builtin: IO, API: a})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range cars {
		all.Go(func() {
			id := fleet.CarID{Company: "acme", Car: fmt.Sprintf("car_%d", n)}
			opened, err := m.Open(t.Context(), module.InstanceSpec{Car: id, Config: []module.Pair{{Key: keyCount, Value: "10000"}}})
			if err != nil {
				t.Error(err)
				return
			}
			i := opened.(*Instance)
			if err := i.ForwardStatus(t.Context(), device(2, "role"), []byte("[]")); err != nil {
				t.Error(err)
				return
			}
			testwait.Until(t, "the device to be known", func() bool { return i.Stats().Posted == 1 })
			var mu sync.Mutex
			var got []string
			stopped := false
			stop := i.StartCommands(func(commands []fleet.Command) <-chan struct{} {
				mu.Lock()
				defer mu.Unlock()
				if stopped {
					t.Error("a command was delivered after the stop")
				}
				for _, c := range commands {
					got = append(got, string(c.Data))
				}
				return nil
			})
			testwait.Until(t, "the long poll", func() bool { return i.parked() })
			var want []string
			for n := range commands {
				data := fmt.Sprintf(`[{"actType":%d,"outNum":1}]`, n)
				want = append(want, data)
				if err := a.PostCommands(t.Context(), id, []httpapi.Message{command(2, 0, data)}); err != nil {
					t.Error(err)
				}
			}
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(got)
			}
			if n%2 == 0 {
				testwait.Until(t, "all commands", func() bool { return count() >= commands })
			}
			stop() // the API's wait is an hour
			mu.Lock()
			stopped = true
			mu.Unlock()
			if n%2 == 1 {
				want = want[:len(got)]
			}
			if !slices.Equal(got, want) {
				t.Errorf("delivered %q", got)
			}
			if err := i.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := server.Stats().Waiting; n != 0 {
		t.Errorf("%d polls still wait", n)
	}
}

// TestFeedOutlivesTheAPI: when the API inside the process fails, the feed goes on
// and recovers.
func TestFeedOutlivesTheAPI(t *testing.T) {
	server, end := embed(t, filepath.Join(t.TempDir(), "api.db"), "127.0.0.1:0", time.Second)
	i := open(t, Options{Builtin: IO, API: server.API()})
	stop := i.StartCommands(func([]fleet.Command) <-chan struct{} { return nil })
	testwait.Until(t, "the long poll", func() bool { return i.parked() })
	end()
	testwait.Until(t, "the failure to be noticed", func() bool { return !i.Stats().APIUp })
	stop()
}

// parked tells whether the commands' long poll waits in the API of this process.
func (i *Instance) parked() bool {
	f := i.feed.Load()
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stop != nil
}

// No command is fetched while those that were are not wanted (REC-22): they stay in
// the API. The stop does not wait for that.
func TestFeedFetchesWhatIsWanted(t *testing.T) {
	server, _ := embed(t, filepath.Join(t.TempDir(), "api.db"), "127.0.0.1:0", time.Second)
	i := open(t, Options{Builtin: IO, API: server.API()})
	id := i.car
	if err := i.ForwardStatus(t.Context(), device(2, "role"), []byte("[]")); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the device to be known", func() bool { return i.Stats().Posted == 1 })
	var mu sync.Mutex
	var got []string
	wanted := make(chan struct{})
	stop := i.StartCommands(func(commands []fleet.Command) <-chan struct{} {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, datas(commands))
		return wanted
	})
	delivered := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
	testwait.Until(t, "the long poll", func() bool { return i.parked() })
	var want []string
	for n := range 3 {
		data := fmt.Sprintf(`[{"actType":%d,"outNum":1}]`, n)
		want = append(want, data)
		if err := server.API().PostCommands(t.Context(), id, []httpapi.Message{command(2, 0, data)}); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			testwait.Until(t, "the first command", func() bool { return len(delivered()) == 1 })
		}
	}
	if n := server.Stats().Waiting; n != 0 || len(delivered()) != 1 {
		t.Errorf("%d polls wait, delivered %q", n, delivered())
	}
	close(wanted)
	testwait.Until(t, "all commands", func() bool { return strings.Join(delivered(), " ") == strings.Join(want, " ") })
	stop()
	if err := i.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
