package fleetapi

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/httpapi"
	"external-server/internal/support/testlog"
)

// TestFlush is REC-20: short polls, at most 250 ms apart, until one succeeds;
// what it brings is discarded, also after an outage (DEF-37).
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		up := time.Now().Add(2 * time.Second)
		var queries []httpapi.Query
		last := time.Now()
		a := &faultyAPI{poll: func(_ context.Context, q httpapi.Query) ([]httpapi.Message, error) {
			queries = append(queries, q)
			if q.Wait {
				return []httpapi.Message{command(3, 2000, `"new"`)}, nil
			}
			if gap := time.Since(last); gap > 250*time.Millisecond {
				t.Errorf("%v between attempts", gap)
			}
			last = time.Now()
			if time.Now().Before(up) {
				return nil, status(401)
			}
			return []httpapi.Message{command(3, 900, `"old"`), command(1, 1000, `{}`)}, nil
		}}
		i := open(t, Options{Builtin: Transparent, API: a, Logger: log.Logger()})
		var got string
		for got == "" {
			commands, err := i.WaitCommands(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got = datas(commands)
		}
		if got != `"new"` {
			t.Errorf("delivered %s", got)
		}
		if q := queries[len(queries)-1]; q.Since != 1001 {
			t.Errorf("the long poll begins at %d, want 1001", q.Since)
		}
		if s := i.Stats(); s.CommandsFlushed != 1 || s.Commands != 1 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), "check api_key"); n != 1 {
			t.Errorf("warned %d times about the key", n)
		}
	})
}

// TestGuardedPolls is MM-6 in place: an API that answers long polls at once is
// asked at a bounded rate.
func TestGuardedPolls(t *testing.T) {
	for _, answer := range []error{nil, status(404)} {
		synctest.Test(t, func(t *testing.T) {
			polls := 0
			a := &faultyAPI{poll: func(context.Context, httpapi.Query) ([]httpapi.Message, error) {
				polls++
				return nil, answer
			}}
			i := open(t, Options{Builtin: Mission, API: a})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for ctx.Err() == nil {
				if _, err := i.WaitCommands(ctx); err != nil && ctx.Err() == nil {
					t.Fatal(err)
				}
			}
			// Three at once and a pause of 500 ms, then one every 220 ms, of which
			// every third brings another pause.
			if polls < 25 || polls > 40 {
				t.Errorf("%d polls in 10 s", polls)
			}
		})
	}
}

// TestDelayed: a poll that the guard delays is repeated by the mission module
// (MM-28) and used by the others (MM-5, MM-10).
func TestDelayed(t *testing.T) {
	tests := []struct {
		builtin, data string
		want          []string
	}{
		{Mission, `{"action":"STOP","route":"","stops":[]}`, []string{"1", "", "1 1", "1"}},
		{IO, `[]`, []string{"1", "1", "1", "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.builtin, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stored := []httpapi.Message{}
				var number int64
				a := &faultyAPI{poll: func(_ context.Context, q httpapi.Query) (out []httpapi.Message, _ error) {
					if !q.Wait {
						return nil, nil
					}
					stored = append(stored, command(number, int64(len(stored)+10), tt.data))
					for _, m := range stored {
						if m.Timestamp >= q.Since {
							out = append(out, m)
						}
					}
					return out, nil
				}}
				i := open(t, Options{Builtin: tt.builtin, API: a}, "max_requests_threshold_count", "2", "delay_after_threshold_reached_ms", "5000")
				number = int64(i.kind.number)
				if _, err := i.WaitCommands(t.Context()); err != nil { // the flush
					t.Fatal(err)
				}
				for n, want := range tt.want {
					commands, err := i.WaitCommands(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if got := len(commands); got != len(strings.Fields(want)) {
						t.Errorf("poll %d brought %d commands, want %d", n, got, len(strings.Fields(want)))
					}
				}
			})
		})
	}
}

// TestPollOutage: when the API goes away, its host is asked rarely and shortly;
// commands posted while it was away are delivered afterwards, once.
func TestPollOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, up := time.Now().Add(time.Minute), time.Now().Add(2*time.Minute)
		asked := 0
		a := &faultyAPI{poll: func(ctx context.Context, q httpapi.Query) ([]httpapi.Message, error) {
			now := time.Now()
			if !now.Before(down) && now.Before(up) {
				asked++
				return nil, errors.New("connection refused")
			}
			if now.After(up) && q.Since <= 500 {
				return []httpapi.Message{command(2, 500, `[]`)}, nil
			}
			if !q.Wait {
				return nil, nil
			}
			return nil, sleep(ctx, 5*time.Second)
		}}
		i := open(t, Options{Builtin: IO, API: a})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		got := 0
		var at time.Time
		for ctx.Err() == nil {
			commands, err := i.WaitCommands(ctx)
			if err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
			if len(commands) > 0 {
				got, at = got+len(commands), time.Now()
			}
		}
		if got != 1 || at.Sub(up) > breakerMax+time.Second {
			t.Errorf("%d commands, %v after the API was back", got, at.Sub(up))
		}
		if asked > 40 {
			t.Errorf("asked %d times in a minute", asked)
		}
	})
}

// TestInvalidCommands is MM-26 and MM-35 as we do it: the invalid one is skipped
// with a warning that says what was expected, the others are delivered in order.
func TestInvalidCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		a := &faultyAPI{poll: func(_ context.Context, q httpapi.Query) ([]httpapi.Message, error) {
			if !q.Wait {
				return nil, nil
			}
			return []httpapi.Message{
				command(2, 5, `[{"outNum":1,"actType":0}]`),
				command(2, 6, `[{"outNum":"1","actType":0}]`),
				command(2, 6, `[{"outNum":2,"actType":0}]`),
			}, nil
		}}
		i := open(t, Options{Builtin: IO, API: a, Logger: log.Logger()})
		if _, err := i.WaitCommands(t.Context()); err != nil {
			t.Fatal(err)
		}
		commands, err := i.WaitCommands(t.Context())
		if err != nil || datas(commands) != `[{"actType":0,"outNum":1}] [{"actType":0,"outNum":2}]` {
			t.Errorf("delivered %s, %v", datas(commands), err)
		}
		if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "outNum is a string; expected a number") {
			t.Errorf("log: %s", text)
		}
		if s := i.Stats(); s.CommandsInvalid != 1 || s.Commands != 2 {
			t.Errorf("%+v", s)
		}
	})
}
