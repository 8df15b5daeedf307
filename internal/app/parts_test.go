package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/config"
)

// fakePart writes down what is done to it.
type fakePart struct {
	name string
	did  *[]string
	fail string        // what fails
	hold chan struct{} // stop waits for it
}

func (p fakePart) do(what string) error {
	*p.did = append(*p.did, p.name+" "+what)
	if p.fail == what {
		return errors.New(p.name + ": cannot " + what)
	}
	return nil
}

func (fakePart) keys() []string { return nil }

func (p fakePart) stop() error {
	if p.hold != nil {
		<-p.hold
	}
	return p.do("stop")
}

func (p fakePart) prepare(context.Context, *config.Config, *config.Config) (change, error) {
	return change{
		apply: func(context.Context) error { return p.do("apply") },
		drop:  func() error { return p.do("drop") },
	}, p.do("prepare")
}

// TestPartsAreWalked: prepared from the bottom up; begun, changed, dropped and stopped
// from the top down. What fails is undone, or told.
func TestPartsAreWalked(t *testing.T) {
	for _, c := range []struct {
		name, failing, what string
		walk                func(parts) error
		want                string
	}{
		{"a change", "", "", func(ps parts) error {
			made, err := ps.prepare(t.Context(), nil, nil)
			return errors.Join(err, made.apply(t.Context(), false))
		}, "low prepare, mid prepare, top prepare, top apply, mid apply, low apply"},
		{"a change that cannot be prepared", "top", "prepare", func(ps parts) error {
			_, err := ps.prepare(t.Context(), nil, nil)
			return err
		}, "low prepare, mid prepare, top prepare, mid drop, low drop"},
		{"a change that cannot be applied everywhere", "top", "apply", func(ps parts) error {
			made, err := ps.prepare(t.Context(), nil, nil)
			return errors.Join(err, made.apply(t.Context(), false))
		}, "low prepare, mid prepare, top prepare, top apply, mid apply, low apply"},
		{"a start that fails", "mid", "apply", func(ps parts) error {
			made, err := ps.prepare(t.Context(), nil, nil)
			return errors.Join(err, made.apply(t.Context(), true))
		}, "low prepare, mid prepare, top prepare, top apply, mid apply"},
		{"a stop", "top", "stop", parts.stop, "top stop, mid stop, low stop"},
	} {
		var did []string
		var ps parts
		for _, name := range []string{"low", "mid", "top"} {
			p := fakePart{name: name, did: &did}
			if name == c.failing {
				p.fail = c.what
			}
			ps = append(ps, step{name, p, time.Second})
		}
		err := c.walk(ps)
		if got := strings.Join(did, ", "); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
		if failed := err != nil; failed != (c.failing != "") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestStopOfAPartIsBounded: one that does not end is named, and the others are stopped.
func TestStopOfAPartIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var did []string
		hold := make(chan struct{})
		begun := time.Now()
		err := parts{
			{"the lower part", fakePart{name: "low", did: &did}, time.Second},
			{"the upper part", fakePart{name: "top", did: &did, hold: hold}, 3 * time.Second},
		}.stop()
		if err == nil || err.Error() != "the upper part: has not ended within 3s" || time.Since(begun) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		if !slices.Equal(did, []string{"low stop"}) {
			t.Errorf("%q", did)
		}
		close(hold)
	})
}

// busy is a part whose address another process has for a while.
type busy struct {
	free  time.Time
	tries int
}

func (*busy) keys() []string { return nil }
func (*busy) stop() error    { return nil }

func (p *busy) prepare(context.Context, *config.Config, *config.Config) (change, error) {
	if p.tries++; time.Now().Before(p.free) {
		return change{}, fmt.Errorf("listen: %w", syscall.EADDRINUSE)
	}
	return change{}, nil
}

// A server that is started while one that was killed is still ending waits for its
// addresses; a reload, and a start that meets another program, fail.
func TestAddressIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			ends   time.Duration
			old    *config.Config
			starts bool
		}{{time.Second, nil, true}, {time.Hour, nil, false}, {time.Second, new(config.Config), false}} {
			p := &busy{free: time.Now().Add(c.ends)}
			begin := time.Now()
			_, err := parts{{name: "busy", part: p}}.prepare(t.Context(), c.old, new(config.Config))
			if took := time.Since(begin); (err == nil) != c.starts || took > addressWait || c.old != nil && p.tries > 1 {
				t.Errorf("%+v: %v after %v and %d tries", c, err, took, p.tries)
			}
		}
	})
}
