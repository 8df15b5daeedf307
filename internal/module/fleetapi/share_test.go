package fleetapi

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/testwait"
)

// received collects the commands of one feed.
type received struct {
	mu   sync.Mutex
	data []string
}

func (r *received) deliver(commands []fleet.Command) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range commands {
		r.data = append(r.data, string(c.Data))
	}
	return nil
}

func (r *received) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.data)
}

// TestShare: the modules of a car wait in one poll, each gets its own commands
// once and in order, whichever module comes and goes meanwhile, and no stop waits for the
// poll.
func TestShare(t *testing.T) {
	server, _ := embed(t, filepath.Join(t.TempDir(), "api.db"), "127.0.0.1:0", time.Hour)
	pool := NewPool(nil)
	defer pool.Close()
	url := "http://" + server.Addr().String() + httpapi.BasePath
	names := []string{Mission, IO, Transparent}
	begin := func(number int) (*received, func()) {
		i := open(t, Options{Builtin: names[number-1], Pool: pool}, keyURL, url)
		r := &received{}
		return r, i.StartCommands(r.deliver)
	}
	members := func() int {
		pool.mu.Lock()
		defer pool.mu.Unlock()
		n := 0
		for _, s := range pool.shares {
			n += len(*s.members.Load())
		}
		return n
	}
	post := func(number, n int) string {
		t.Helper()
		data := map[int]string{1: `{"action":"START","route":"%d","stops":[]}`, 2: `[{"actType":%d,"outNum":1}]`, 3: `[%d]`}[number]
		data = fmt.Sprintf(data, n)
		if err := server.API().PostCommands(t.Context(), car, []httpapi.Message{command(int64(number), 0, data)}); err != nil {
			t.Fatal(err)
		}
		return data
	}
	for number := range 3 {
		m := command(int64(number+1), 0, "{}")
		m.Payload.MessageType = httpapi.TypeStatus
		if err := server.API().PostStatuses(t.Context(), car, []httpapi.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	mission, stopMission := begin(1)
	io, stopIO := begin(2)
	testwait.Until(t, "one poll for both", func() bool { return members() == 2 && server.Stats().Waiting == 1 })
	transparent, stopTransparent := begin(3)
	testwait.Until(t, "the third", func() bool { return members() == 3 && server.Stats().Waiting == 1 })
	var want [3][]string
	for n := range 20 {
		for number := 1; number <= 3; number++ {
			want[number-1] = append(want[number-1], post(number, n))
		}
		if n == 9 { // a poll under way does not hold it up, and the others go on
			testwait.Until(t, "the commands before the stop", func() bool { return len(io.all()) == 10 })
			stopIO()
			if got := io.all(); !slices.Equal(got, want[1]) {
				t.Errorf("io before the stop: %q", got)
			}
			want[1] = nil
			io, stopIO = begin(2)
			testwait.Until(t, "io to be back", func() bool { return members() == 3 })
		}
	}
	for number, r := range []*received{mission, io, transparent} {
		testwait.Until(t, "all commands", func() bool { return len(r.all()) >= len(want[number]) })
		if got := r.all(); !slices.Equal(got, want[number]) {
			t.Errorf("module %d got %q, expected %q", number+1, got, want[number])
		}
	}
	stopMission()
	stopTransparent()
	last := post(2, 99)
	testwait.Until(t, "the last member's command", func() bool { return slices.Contains(io.all(), last) })
	stopIO()
	testwait.Until(t, "the poll to end", func() bool { return server.Stats().Waiting == 0 })
	if n := len(pool.shares); n > 0 {
		t.Errorf("%d shares are left", n)
	}
	if n := len(mission.all()) + len(transparent.all()); n != 40 {
		t.Errorf("%d commands, some after the stop", n)
	}
}

// TestShareParts: who has seen more than the poll asked for gets the rest only;
// who has seen less than that waits for its own poll; what a held poll returns
// with a time before what was asked for (the API's clock stepped back) is new.
func TestShareParts(t *testing.T) {
	s := &share{}
	feedAt := func(last int64) (*feed, *received) {
		i := open(t, Options{Builtin: Transparent, API: &faultyAPI{}})
		i.poll.primed, i.poll.last = true, last
		r := &received{}
		return &feed{i: i, deliver: r.deliver}, r
	}
	ahead, gotAhead := feedAt(10)
	behind, gotBehind := feedAt(5)
	late, gotLate := feedAt(2)
	s.members.Store(&[]*feed{ahead, behind})
	since, _ := s.due()
	if since != 6 {
		t.Errorf("the poll asks for %d, expected what the one behind has not seen", since)
	}
	s.members.Store(&[]*feed{ahead, behind, late}) // while the poll waits
	s.hand(since, []httpapi.Message{command(3, 4, `"4"`), command(3, 7, `"7"`), command(3, 10, `"10"`), command(3, 11, `"11"`)}, nil)
	for _, c := range []struct {
		name string
		f    *feed
		got  *received
		want []string
		last int64
	}{
		{"ahead", ahead, gotAhead, []string{`"4"`, `"11"`}, 11},
		{"behind", behind, gotBehind, []string{`"4"`, `"7"`, `"10"`, `"11"`}, 11},
		{"late", late, gotLate, nil, 2},
	} {
		if got := c.got.all(); !slices.Equal(got, c.want) || c.f.i.poll.last != c.last {
			t.Errorf("%s: got %q up to %d, expected %q up to %d", c.name, got, c.f.i.poll.last, c.want, c.last)
		}
	}
	if since, _ := s.due(); since != 3 {
		t.Errorf("the next poll asks for %d, expected what the late one needs", since)
	}
}
