package cluster

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var (
	simSeeds = flag.Int("seeds", 150, "simulate this many histories of a cluster")
	simSeed  = flag.Uint64("seed", 1, "the first of them")
	simTrace = flag.Bool("trace", false, "print what happens")
)

// TestHistories plays random histories of two or three replicas with planners of their
// own, clocks of their own, and a modelled etcd, broker and network, in which everything
// fails for a while. A seed that fails is printed and replays exactly.
func TestHistories(t *testing.T) {
	for seed := *simSeed; seed < *simSeed+uint64(*simSeeds); seed++ {
		if w := simulate(seed, *simTrace); w.failure != "" {
			t.Fatalf("seed %d, after %v: %s\n%s\nreplay: go test ./internal/cluster -run '^TestHistories$' -seeds 1 -seed %d", seed, w.now, w.failure, w.tail(), seed)
		}
	}
}

// world is one history.
type world struct {
	rng      *rand.Rand
	now      time.Duration
	events   eventHeap
	order    int
	etcd     *simEtcd
	broker   []simShard
	replicas []*simReplica
	names    []string // sorted
	failure  string
	lines    []string
	trace    bool
	slow     bool          // the network is slow for a while
	calm     bool          // no more faults
	troubled time.Duration // when the last fault ended
	restored time.Duration // when etcd was
	unserved []time.Duration
	moves    int
	extra    *simReplica // joins late
	anyCar   bool        // whether all configurations have "*" in the end
}

// simShard is what the broker has of a shard.
type simShard struct {
	epoch int64
	by    *simReplica // who published it
	conn  *simReplica // who has the connection; nil: none
}

type simEvent struct {
	at    time.Duration
	order int
	do    func()
}

type eventHeap []simEvent

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(simEvent)) }
func (h *eventHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func (w *world) at(t time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, simEvent{max(t, w.now), w.order, do})
}

func (w *world) after(d time.Duration, do func()) { w.at(w.now+d, do) }

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

// delay is that of one message.
func (w *world) delay() time.Duration {
	if w.slow || w.chance(0.01) {
		return w.between(0, 800*time.Millisecond)
	}
	return w.between(0, 20*time.Millisecond)
}

// long is what a call of the host takes.
func (w *world) long() time.Duration {
	if w.chance(0.05) {
		return w.between(0, 3*time.Second)
	}
	return w.between(10*time.Millisecond, 150*time.Millisecond)
}

func (w *world) log(format string, args ...any) {
	if w.trace {
		fmt.Printf("%9.3f "+format+"\n", append([]any{w.now.Seconds()}, args...)...)
		return
	}
	if len(w.lines) >= 400 {
		w.lines = append(w.lines[:0], w.lines[200:]...)
	}
	w.lines = append(w.lines, "")
	w.lines[len(w.lines)-1] = fmt.Sprintf("%9.3f "+format, append([]any{w.now.Seconds()}, args...)...)
}

func (w *world) tail() string { return strings.Join(w.lines[max(0, len(w.lines)-60):], "\n") }

func (w *world) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
	}
}

// run lets time pass.
func (w *world) run(until time.Duration) {
	for w.failure == "" && len(w.events) > 0 && w.events[0].at <= until {
		ev := heap.Pop(&w.events).(simEvent)
		w.now = ev.at
		ev.do()
	}
	if w.failure == "" {
		w.now = until
	}
}

// simulate plays one history: replicas start, everything fails for a while, everything
// is well again and has to settle, and one replica ends in order.
func simulate(seed uint64, trace bool) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7)), trace: trace}
	shards := 1 + w.rng.IntN(7)
	if w.chance(0.05) {
		shards = 10 + w.rng.IntN(12)
	}
	w.etcd = newSimEtcd(w, shards)
	w.broker, w.unserved = make([]simShard, shards), make([]time.Duration, shards)
	count := 2 + w.rng.IntN(2)
	for i := range count {
		r := &simReplica{w: w, name: string(rune('a' + i)), offset: w.between(0, time.Hour), rate: 0.98 + 0.04*w.rng.Float64(), healthy: -1, answers: -1}
		w.names = append(w.names, r.name)
		w.replicas = append(w.replicas, r)
	}
	w.reloads(seed)
	w.after(200*time.Millisecond, w.check)
	for i, r := range w.replicas {
		switch {
		case i > 0 && w.chance(0.3):
			w.extra = r
			w.after(w.between(0, 40*time.Second), r.start)
		default:
			w.after(w.between(0, 500*time.Millisecond), r.start)
		}
	}
	for range w.rng.IntN(7) {
		w.after(w.between(0, 60*time.Second), w.fault)
	}
	w.run(60 * time.Second)
	w.heal()
	w.settle(fmt.Sprintf("%v after the last fault", bound))
	w.finale()
	return w
}

// bound is how long a cluster of this size may take to be as it should, whatever was
// before: a lease, the longest retry, the 15 s before shards move, and the moves.
const bound = 120 * time.Second

// heal ends all faults.
func (w *world) heal() {
	w.log("all faults end")
	w.calm, w.slow, w.etcd.away = true, false, false
	w.troubled = w.now
	for _, r := range w.replicas {
		r.noEtcd, r.noBroker, r.ill, r.deaf, r.broken = false, false, false, false, false
		r.reload(w.anyCar)
		if !r.alive {
			r.start()
		} else if r.drainAt > 0 {
			r.kill() // the process that has drained ends, and is started anew
			r.start()
		}
	}
}

// settle lets time pass and expects the cluster to be as it should: all shards served,
// claimed, shared, and nothing moves.
func (w *world) settle(when string) {
	w.run(w.now + bound)
	if w.failure != "" {
		return
	}
	before := w.moves
	load := make(map[*simReplica]int)
	for n := range w.broker {
		owner := w.broker[n].conn
		c := w.etcd.claims[n].Claim
		if owner == nil || owner.serving[n] != w.broker[n].epoch {
			w.fail("%s: shard %d has no owner", when, n)
			return
		}
		if c.Owner != owner.name || c.State != ClaimServing || c.Epoch() != w.broker[n].epoch {
			w.fail("%s: shard %d is served by %s under %d, and etcd has %+v", when, n, owner.name, w.broker[n].epoch, c)
		}
		load[owner]++
	}
	most, least := 0, len(w.broker)
	able := 0
	for _, r := range w.replicas {
		if !r.alive || r.ill || r.broken || r.drainAt > 0 {
			if load[r] > 0 {
				w.fail("%s: %s serves %d shards, which it should have given away", when, r.name, load[r])
			}
			continue
		}
		able++
		most, least = max(most, load[r]), min(least, load[r])
		if len(r.serving) != load[r] {
			w.fail("%s: %s believes that it serves %v", when, r.name, r.serving)
		}
	}
	if able > 0 && most-least > 1 {
		w.fail("%s: the shards are not shared: from %d to %d", when, least, most)
	}
	w.checkScout(when, able)
	w.run(w.now + 30*time.Second)
	if w.moves != before {
		w.fail("%s: shards move without a reason", when)
	}
}

// finale is one thing that is done in order, or one fault that stays.
func (w *world) finale() {
	if w.failure != "" {
		return
	}
	r := w.replicas[w.rng.IntN(len(w.replicas))]
	switch w.rng.IntN(6) {
	case 5:
		w.cutOff(r)
	case 4:
		w.etcd.away, w.troubled = true, w.now+time.Hour
		r.drain()
		w.run(w.now + 30*time.Second)
		if w.failure == "" && !r.p.Drained() {
			w.fail("the drain of %s does not end without etcd", r.name)
		}
	case 0:
		r.drain()
		w.settle("after a drain")
		if !r.p.Drained() {
			w.fail("the drain of %s does not end", r.name)
		}
	case 1:
		w.log("%s is ill", r.name)
		r.ill = true
		w.settle("with one that is not well")
	case 2:
		w.log("%s opens nothing", r.name)
		r.broken = true
		r.kill()
		r.start()
		w.run(w.now + 12*time.Second)
		for n := range w.broker {
			if !w.served(n) {
				w.fail("shard %d has no owner 12 s after one was killed", n)
			}
		}
	case 3:
		r.kill()
		w.run(w.now + 12*time.Second)
		for n := range w.broker {
			if !w.served(n) {
				w.fail("shard %d has no owner 12 s after one was killed", n)
			}
		}
		w.shared(r, "killed")
	}
}

// shared expects the shards of a replica that is gone to be shared by the others.
func (w *world) shared(gone *simReplica, how string) {
	others := len(w.replicas) - 1
	for _, o := range w.replicas {
		if share := (len(w.broker) + others - 1) / others; len(o.serving) > share && o != gone {
			w.fail("%s has %d of %d shards after one was %s and %d are left", o.name, len(o.serving), len(w.broker), how, others)
		}
	}
}

// cutOff takes the broker from a replica for good: it has to begin to give everything away
// before a lease of 3 s would have ended.
func (w *world) cutOff(r *simReplica) {
	r.noBroker, r.deaf = true, w.chance(0.3)
	w.log("%s has lost the broker, and its peers: %v", r.name, r.deaf)
	r.mark()
	w.run(w.now + 2800*time.Millisecond)
	for n := range r.p.shards {
		if r.p.shards[n].phase == serving && w.failure == "" {
			w.fail("%s keeps shard %d without broker", r.name, n)
		}
	}
	w.run(w.now + 9*time.Second)
	for n := range w.broker {
		if !w.served(n) {
			w.fail("shard %d has no owner 12 s after one has lost the broker", n)
		}
	}
	w.shared(r, "cut off from the broker")
}

func (r *simReplica) drain() {
	if !r.alive || r.drainAt > 0 {
		return
	}
	r.w.log("%s drains", r.name)
	r.drainAt = r.w.now
	r.later(0, func() { r.step(Event{Kind: EventDrain}) })
}

// fault is one thing that goes wrong, and ends.
func (w *world) fault() {
	if w.calm {
		return
	}
	r := w.replicas[w.rng.IntN(len(w.replicas))]
	d := w.between(200*time.Millisecond, 20*time.Second)
	lasts := func() { w.troubled = max(w.troubled, w.now+d) }
	flag := func(what string, to *bool) {
		w.log("%s for %v", what, d)
		*to = true
		lasts()
		r.mark()
		w.after(d, func() { *to = false; w.log("%s no more", what); w.troubled = w.now })
	}
	switch w.rng.IntN(14) {
	case 13:
		for _, r = range w.replicas {
			flag(r.name+" without broker", &r.noBroker)
		}
	case 0:
		r.kill()
		lasts()
		w.after(d, func() {
			if !r.alive {
				r.start()
			}
		})
	case 1:
		r.pause(d)
		lasts()
	case 2:
		flag(r.name+" without etcd", &r.noEtcd)
	case 3:
		flag(r.name+" without broker", &r.noBroker)
	case 4:
		flag(r.name+" without peers", &r.deaf)
	case 5:
		flag(r.name+" without etcd", &r.noEtcd)
		flag(r.name+" without broker", &r.noBroker)
		flag(r.name+" without peers", &r.deaf)
	case 6:
		flag("etcd is away", &w.etcd.away)
	case 7:
		w.log("all leases are revoked")
		w.etcd.revokeAll()
	case 8:
		w.etcd.save()
		lasts()
		w.after(d, func() { w.log("etcd is restored"); w.restored = w.now; w.etcd.restore() })
	case 9:
		flag(r.name+" ill", &r.ill)
	case 10:
		r.drain()
	case 11:
		flag(r.name+" broken", &r.broken)
	case 12:
		flag("slow", &w.slow)
	}
}
