package etcd_test

import (
	"bytes"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"external-server/internal/cluster"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/testwait"
)

// history are the writes that etcd has made between two moments.
type history struct {
	t      *testing.T
	client *clientv3.Client
	at     int64 // revision of the first moment
}

func (h *history) now() int64 {
	h.t.Helper()
	got, err := h.client.Get(h.t.Context(), "any")
	if err != nil {
		h.t.Fatal(err)
	}
	return got.Header.Revision
}

// since returns the puts and the deletions of each key since the moment before, and how many writes
// they were. A put of what was there is left out: a write whose answer takes longer than half a second is
// made again.
func (h *history) since() (puts, deletions map[string]int, writes int64) {
	h.t.Helper()
	from, to := h.at, h.now()
	puts, deletions = make(map[string]int), make(map[string]int)
	seen, again := from, int64(0)
	for answer := range h.client.Watch(h.t.Context(), "/", clientv3.WithPrefix(), clientv3.WithRev(from+1), clientv3.WithPrevKV()) {
		for _, ev := range answer.Events {
			key := string(ev.Kv.Key)
			if seen = ev.Kv.ModRevision; seen > to {
				break
			}
			switch {
			case ev.Type == clientv3.EventTypeDelete:
				deletions[key]++
			case ev.PrevKv != nil && bytes.Equal(ev.PrevKv.Value, ev.Kv.Value):
				again++
			default:
				puts[key]++
			}
		}
		if seen >= to {
			break
		}
	}
	h.at = to
	return puts, deletions, to - from - again
}

// A shard that is handed over costs four writes: the owner says that it leaves and gives the claim up, the next one claims and
// says that it serves. One whose owner has died costs two, beside the end of the lease, which is one
// for all. Nothing else is written but the states of the members.
func TestWritesOfAMove(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	b := &broker{t: t, epochs: make(map[int]int64), owners: make(map[int]*node)}
	x := b.start(e, "x")
	b.settled("one has all", map[*node]int{x: 8})
	y := b.start(e, "y")
	b.settled("two share", map[*node]int{x: 4, y: 4})
	serving := func() bool {
		for _, o := range x.View().Shards {
			if o.State != cluster.ClaimServing {
				return false
			}
		}
		return true
	}
	testwait.Until(t, "all are marked as served", serving)
	testwait.Until(t, "one looks out for unknown cars", func() bool { return x.View().Scout != "" })
	h := &history{t: t, client: operator(t, e)}
	h.at = h.now()
	drained := 0
	if err := y.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.settled("y has none", map[*node]int{x: 8, y: 0})
	testwait.Until(t, "all are marked as served", serving)
	puts, deletions, writes := h.since()
	for key, n := range puts {
		if !strings.Contains(key, "/shards/") {
			continue
		}
		if drained++; n != 3 || deletions[key] != 1 {
			t.Errorf("%s was put %d times and deleted %d times", key, n, deletions[key])
		}
	}
	if drained != 4 || writes < 16 || writes > 16+3 { // the state of y, and the claim of the scout if it was y
		t.Errorf("%d shards were handed over with %d writes: %v, deleted %v", drained, writes, puts, deletions)
	}

	y.stop()
	<-y.done
	z := b.start(e, "z")
	b.settled("two share", map[*node]int{x: 4, z: 4})
	testwait.Until(t, "all are marked as served", serving)
	h.at = h.now()
	z.set(func() { z.dead = true })
	z.proxy.cut()
	b.settled("z is dead", map[*node]int{x: 8})
	testwait.Until(t, "all are marked as served", serving)
	puts, deletions, writes = h.since()
	taken := 0
	for key, n := range puts {
		if !strings.Contains(key, "/shards/") {
			continue
		}
		if taken++; n != 2 || deletions[key] != 1 {
			t.Errorf("%s was put %d times and deleted %d times", key, n, deletions[key])
		}
	}
	if taken != 4 || writes < 8+1 || writes > 8+1+2 { // the end of the lease
		t.Errorf("%d shards were taken over with %d writes: %v, deleted %v", taken, writes, puts, deletions)
	}
}
