package shards

import (
	"context"
	"errors"
	"sync"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/link"
)

// recorder is a child that notes what is asked of it.
type recorder struct {
	name string

	mu       sync.Mutex
	attached []string
	watched  []string
	cause    error         // of the end of Run
	fails    chan struct{} // closed: Run returns errFenced
	up       bool
}

var errFenced = errors.New("fenced")

func newRecorder(name string) *recorder {
	return &recorder{name: name, fails: make(chan struct{}), up: true}
}

func (r *recorder) Attach(car fleet.CarID, _ link.Receiver) (link.Port, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attached = append(r.attached, car.Car)
	return nil, nil
}

func (r *recorder) Watch(company string, _ func(fleet.CarID, []byte)) (func(), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watched = append(r.watched, company)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.watched = append(r.watched, "-"+company)
	}, nil
}

func (r *recorder) Run(ctx context.Context) error {
	select {
	case <-r.fails:
		return errFenced
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cause = context.Cause(ctx)
	return nil
}

func (r *recorder) State() link.State {
	return link.State{Up: r.up, Cars: 1, Connections: []link.ConnectionState{{ClientID: r.name}}}
}

func (r *recorder) saw(t *testing.T, what []string, expected ...string) {
	t.Helper()
	if len(what) != len(expected) {
		t.Fatalf("%s: %q, expected %q", r.name, what, expected)
	}
	for i := range what {
		if what[i] != expected[i] {
			t.Fatalf("%s: %q, expected %q", r.name, what, expected)
		}
	}
}

// shardOf is the number at the end of the car's name.
func shardOf(car fleet.CarID) int { return int(car.Car[len(car.Car)-1] - '0') }

func named(name string) fleet.CarID { return fleet.CarID{Company: "company", Car: name} }

// Each car is attached to the link of its shard, while that is there.
func TestAttach(t *testing.T) {
	l := New(shardOf)
	one, two := newRecorder("1"), newRecorder("2")
	for n, c := range map[int]Child{1: one, 2: two} {
		if err := l.Put(n, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Put(1, two); err == nil {
		t.Error("a shard has two links")
	}
	for _, car := range []string{"a1", "b2", "c1"} {
		if _, err := l.Attach(named(car), nil); err != nil {
			t.Error(err)
		}
	}
	one.saw(t, one.attached, "a1", "c1")
	two.saw(t, two.attached, "b2")
	if _, err := l.Attach(named("d3"), nil); !errors.Is(err, ErrNotServed) {
		t.Errorf("a car of a shard without link: %v", err)
	}
	if !l.Take(2, nil) || l.Take(2, nil) {
		t.Error("a shard is taken twice, or not at all")
	}
	if _, err := l.Attach(named("b2"), nil); !errors.Is(err, ErrNotServed) {
		t.Errorf("a car of a shard that was taken: %v", err)
	}
}

// A child ends with the cause with which it is taken, and the others with that of the whole
// link.
func TestCauses(t *testing.T) {
	l := New(shardOf)
	one, two := newRecorder("1"), newRecorder("2")
	for n, c := range map[int]Child{1: one, 2: two} {
		if err := l.Put(n, c); err != nil {
			t.Fatal(err)
		}
		l.Start(n, func(err error) { t.Errorf("shard %d ended by itself: %v", n, err) })
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	l.Take(1, link.ErrSuspend)
	if one.cause != link.ErrSuspend {
		t.Errorf("cause %v", one.cause)
	}
	stop := errors.New("stop")
	cancel(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if two.cause != stop {
		t.Errorf("cause %v", two.cause)
	}
	late := newRecorder("3") // one that comes too late ends at once
	if err := l.Put(3, late); err != nil {
		t.Fatal(err)
	}
	l.Start(3, nil)
	l.Take(3, nil)
	if late.cause != stop {
		t.Errorf("cause %v", late.cause)
	}
}

// A child that ends by itself is told once, and can be taken all the same.
func TestEndsByItself(t *testing.T) {
	l := New(shardOf)
	one := newRecorder("1")
	if err := l.Put(1, one); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	l.Start(1, func(err error) { ended <- err })
	close(one.fails)
	if err := <-ended; !errors.Is(err, errFenced) {
		t.Errorf("error %v", err)
	}
	if !l.Take(1, nil) {
		t.Error("it is gone")
	}
}

// A watch follows the scout, whichever comes first.
func TestScout(t *testing.T) {
	l := New(shardOf)
	stop, err := l.Watch("company", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Watch("company", nil); err == nil {
		t.Error("a company is watched twice")
	}
	first, second := newRecorder("first"), newRecorder("second")
	for _, s := range []Child{first, second} {
		if err := l.Scout(s); err != nil {
			t.Fatal(err)
		}
	}
	first.saw(t, first.watched, "company", "-company")
	second.saw(t, second.watched, "company")
	if _, err := l.Watch("other", nil); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := l.Scout(nil); err != nil {
		t.Fatal(err)
	}
	second.saw(t, second.watched, "company", "other", "-company", "-other")
}

// The link is up when all its children are.
func TestState(t *testing.T) {
	l := New(shardOf)
	if !l.State().Up {
		t.Error("not up without children")
	}
	one, two := newRecorder("1"), newRecorder("2")
	for n, c := range map[int]Child{1: one, 2: two} {
		if err := l.Put(n, c); err != nil {
			t.Fatal(err)
		}
	}
	s := l.State()
	if !s.Up || s.Cars != 2 || len(s.Connections) != 2 || s.Connections[0].ClientID != "1" {
		t.Errorf("state %+v", s)
	}
	two.up = false
	if l.State().Up {
		t.Error("up, and one is not")
	}
	if s, ok := l.StateOf(1); !ok || !s.Up {
		t.Errorf("state of 1: %+v, %v", s, ok)
	}
	if _, ok := l.StateOf(3); ok {
		t.Error("a shard without link has a state")
	}
}
