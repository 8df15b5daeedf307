package app

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"external-server/internal/cluster"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/testwait"
)

// An etcd that was restored gives lower epochs than before. A shard that is served keeps
// the epoch that it has, and the caller is told which one to exceed.
func TestEpochNeverFalls(t *testing.T) {
	t.Parallel()
	_, cars := carsOfEach(1)
	c := newCrowd(t, cars)
	a := c.start("a")
	low := c.table.next()
	c.open(a, 0)
	high := c.table.view.Shards[0].Epoch
	for _, epoch := range []int64{low, high - 1} {
		err := a.cluster.replica.Open(t.Context(), 0, epoch)
		stale, ok := errors.AsType[*cluster.StaleError](err)
		if !ok || stale.Known != high || stale.Epoch != epoch || stale.Shard != 0 {
			t.Errorf("Open under %d while %d is in force: %v", epoch, high, err)
		}
	}
	if got := a.peers.owners.Owner(0).Epoch; got != high {
		t.Errorf("the epoch went from %d to %d", high, got)
	}
	if err := a.cluster.replica.Open(t.Context(), 0, high+10); err != nil {
		t.Error(err)
	}
}

// A replica that cannot serve does not say that it does: otherwise the others would leave
// a shard to it whose claim has vanished.
func TestIllReplicaLeavesItsShardsToOthers(t *testing.T) {
	t.Parallel()
	_, cars := carsOfEach(1)
	c := newCrowd(t, cars)
	c.edges("a")
	a, b := c.start("a"), c.start("b")
	c.open(a, 0)
	b.hears(0, "a")
	c.relays["a"].Set(badnetwork.Faults{Silent: true})
	testwait.Until(t, "the replica notices", a.silent)
	if answer, err := b.cluster.replica.Ask(t.Context(), 0); err != nil || answer.Serving {
		t.Errorf("%+v, %v", answer, err)
	}
}

// The answer of the replica that was given a shard is lost, so its owner serves on. What it has given is
// outdated then: when it fails, the other replica goes on from the records at the broker.
func TestHandOverWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	c.served(2)
	deaf := b.member()
	deaf.Address = withoutAnswers(t, deaf.Address)
	for n := range crowdShards {
		if err := a.cluster.replica.Close(t.Context(), n, deaf, false); err == nil {
			t.Fatal("the answer was not lost")
		}
	}
	c.served(5)
	for n := range crowdShards {
		c.open(b, n)
	}
	c.served(5)
	c.unnoticed()
}

// withoutAnswers returns the address of a proxy that ends a connection as soon as the other side answers.
func withoutAnswers(t *testing.T, to string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() { l.Close(); running.Wait() })
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			running.Go(func() { _, _ = io.Copy(out, in) })
			running.Go(func() {
				_, _ = out.Read(make([]byte, 1))
				in.Close()
				out.Close()
			})
		}
	})
	return l.Addr().String()
}
