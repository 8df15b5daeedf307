package boundary

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// Each wait that exceeds its timeout is named once, again only after it came back.
func TestOverdue(t *testing.T) {
	polls := heldPolls{held: map[uint32]*heldPoll{}}
	took := time.Duration(0)
	waiting := func() time.Duration { return took }
	for id := range uint32(20) {
		poll := polls.begin(context.Background(), uint64(100+id), &pb.Poll{Context: id, TimeoutMs: 1000, Hold: true})
		if id < 18 {
			poll.waiting.Store(&waiting)
		}
	}
	named := func(patience time.Duration) int {
		found := polls.overdue(patience)
		for _, o := range found {
			if o.Id < 100 || o.Id >= 118 || o.WaitingMs != uint32(took.Milliseconds()) {
				t.Errorf("named %+v", o)
			}
		}
		return len(found)
	}
	for _, step := range []struct {
		took time.Duration
		want int
	}{
		{61 * time.Second, 0}, {61*time.Second + 1, maxOverdue}, {62 * time.Second, 18 - maxOverdue}, {63 * time.Second, 0},
		{0, 0}, {62 * time.Second, maxOverdue},
	} {
		took = step.took
		if n := named(time.Minute); n != step.want {
			t.Errorf("after %v: %d named, want %d", took, n, step.want)
		}
	}
	if n := named(0); n != 0 {
		t.Errorf("a server that does not ask got %d", n)
	}
}

// EndPoll ends the poll of its context and no other, whatever else it names.
func TestEndPoll(t *testing.T) {
	polls := heldPolls{held: map[uint32]*heldPoll{}}
	one := &pb.Poll{Context: 1, Hold: true}
	a, b := polls.begin(context.Background(), 1, one), polls.begin(context.Background(), 2, &pb.Poll{Context: 2, Hold: true})
	polls.begin(context.Background(), 3, &pb.Poll{Context: 3})
	polls.end(3)
	polls.end(4)
	polls.end(1)
	if a.ctx.Err() == nil || b.ctx.Err() != nil {
		t.Errorf("ended: %v, %v", a.ctx.Err(), b.ctx.Err())
	}
	next := polls.begin(context.Background(), 5, one)
	polls.done(one, a) // of the one before
	polls.end(1)
	if next.ctx.Err() == nil {
		t.Error("the next poll of the context cannot be ended")
	}
}

// ended is a Holder that is not asked any more.
type ended struct{ scripted }

func (ended) Poll(ctx context.Context, _ *pb.Poll, _ *Commands) error {
	return fmt.Errorf("not asked: %w", ctx.Err())
}

func (ended) Waiting() time.Duration { return 0 }

// EndPoll may come before the Context was asked: that is no error of the module.
func TestEndBeforeBegin(t *testing.T) {
	polls := heldPolls{held: map[uint32]*heldPoll{}}
	poll := polls.begin(t.Context(), 1, &pb.Poll{Context: 1, Hold: true})
	polls.end(1)
	if err := hold(poll.ctx, ended{}, &pb.Poll{Context: 1, Hold: true}, &Commands{}); err != nil {
		t.Error(err)
	}
}

// slow is a Context without commands for a while.
type slow struct {
	scripted
	polls *atomic.Int32
}

func (s slow) Poll(ctx context.Context, poll *pb.Poll, commands *Commands) error {
	if poll.GetHold() {
		return errors.New("the caller holds this poll")
	}
	if s.polls.Add(1) == 3 {
		commands.Add(&pb.Command{Device: &pb.Device{Role: "r"}})
		return nil
	}
	select {
	case <-time.After(time.Duration(poll.GetTimeoutMs()) * time.Millisecond):
	case <-ctx.Done():
	}
	return nil
}

// A Context that knows nothing of polls that are held is called again at every
// timeout, until there are commands or the poll is ended.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		polls := heldPolls{held: map[uint32]*heldPoll{}}
		request := &pb.Poll{Context: 1, Hold: true, TimeoutMs: 1000}
		c := slow{polls: new(atomic.Int32)}
		begin := time.Now()
		commands := &Commands{}
		if err := hold(polls.begin(t.Context(), 1, request).ctx, c, request, commands); err != nil || len(commands.list) != 1 {
			t.Errorf("got %v, %v", commands.list, err)
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("it took %v", took)
		}
		poll := polls.begin(t.Context(), 2, request)
		go func() {
			time.Sleep(time.Minute + time.Millisecond)
			polls.end(1)
		}()
		begin = time.Now()
		if err := hold(poll.ctx, c, request, &Commands{}); err != nil || time.Since(begin) != time.Minute+time.Millisecond {
			t.Errorf("ended after %v: %v", time.Since(begin), err)
		}
		if took := (*poll.waiting.Load())(); took != time.Millisecond {
			t.Errorf("the last wait took %v", took)
		}
	})
}
