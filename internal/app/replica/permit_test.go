package replica

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// oracle is a link that the broker answers after delay, as long as it has the shard.
type oracle struct {
	delay time.Duration
	owns  bool
	asked int

	mu     sync.Mutex
	proved time.Time
}

func (o *oracle) Proved() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.proved
}

func (o *oracle) Prove() {
	o.asked++
	at := time.Now()
	if o.owns {
		time.AfterFunc(o.delay, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.proved = at
		})
	}
}

// Modules are called while the lease of the claim lasts, not because of another one, and after that as long as the
// broker says that the shard is this replica's. A process that stood still has neither.
func TestPermitOfAShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lease, until := int64(1), time.Now().Add(3*time.Second)
		o := &oracle{delay: time.Millisecond, owns: true}
		p := &permit{log: slog.New(slog.DiscardHandler), lease: func() (int64, time.Time) { return lease, until }, broker: o}
		p.own.Store(1)
		time.Sleep(3*time.Second - time.Nanosecond)
		if !p.Granted() || o.asked > 0 {
			t.Errorf("within the lease: granted %v, the broker was asked %d times", p.Granted(), o.asked)
		}
		time.Sleep(17 * time.Second) // SIGSTOP
		if p.Granted() {
			t.Error("granted although the lease has ended and the broker has said nothing since")
		}
		if err := p.Wait(t.Context()); err != nil { // etcd is away, and no other replica has taken the shard
			t.Error(err)
		}
		for range 100 { // a sign of the broker is asked for before the last one is too old
			time.Sleep(20 * time.Millisecond)
			if !p.Granted() {
				t.Fatal("not granted, and the broker answers")
			}
		}
		o.owns = false // another replica takes over, and this one gets a new lease
		lease, until = 2, time.Now().Add(time.Hour)
		time.Sleep(time.Second)
		if p.Granted() {
			t.Error("granted by the lease of another claim")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait returns %v", err)
		}
		p.own.Store(2) // it has claimed again
		if !p.Granted() {
			t.Error("not granted by the lease of the claim")
		}
	})
}
