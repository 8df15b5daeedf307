package cluster

import (
	"slices"
	"time"
)

// check looks at all that must always hold.
func (w *world) check() {
	w.after(200*time.Millisecond, w.check)
	anyWell := false
	for _, r := range w.replicas {
		r.mark()
		anyWell = anyWell || r.healthy >= 0 && w.now-r.healthy > 2*patience
		if r.opens > parallel {
			w.fail("%s opens %d shards at a time", r.name, r.opens)
		}
	}
	for n := range w.broker {
		if w.served(n) || !anyWell || w.now-w.troubled < patience {
			w.unserved[n] = w.now
		}
		if w.now-w.unserved[n] > patience {
			w.fail("shard %d has no owner for %v although a replica is well", n, patience)
		}
	}
	for _, r := range w.replicas {
		if r.alive && r.drainAt > 0 && r.paused == 0 && w.now-r.drainAt > bound && !r.p.Drained() {
			w.fail("%s drains for %v", r.name, bound)
		}
	}
}

// mark notes since when a replica has all it needs, and since when it answers.
func (r *simReplica) mark() {
	note := func(since *time.Duration, holds bool) {
		switch {
		case !holds:
			*since = -1
		case *since < 0:
			*since = r.w.now
		}
	}
	answers := r.alive && r.paused == 0 && !r.noBroker && !r.ill && !r.deaf
	note(&r.answers, answers)
	note(&r.healthy, answers && !r.noEtcd && !r.broken && r.drainAt == 0)
}

// served tells whether cars of a shard are answered.
func (w *world) served(n int) bool {
	r := w.broker[n].conn
	return r != nil && r.alive && r.paused == 0 && !r.noBroker && r.serving[n] > 0
}

// patience is how long a shard may be without owner while a replica is well and nothing
// else happens: a lease, fallbacks, questions without answer, slow calls.
const patience = 25 * time.Second

// checkAction looks at what a planner wants done.
func (w *world) checkAction(r *simReplica, a Action) {
	if a.Kind != ActionClose {
		return
	}
	w.moves++
	_, serves := r.serving[a.Shard]
	if !serves {
		w.fail("%s closes shard %d, which it does not serve", r.name, a.Shard)
	}
	p := r.p
	switch {
	case a.Lost:
	case a.To.Name == "":
		if !p.draining {
			w.fail("%s suspends shard %d without being about to end", r.name, a.Shard)
		}
		for _, m := range p.registry.Members {
			no := p.refused[m.Name].until.After(p.now)
			if p.up && m.Name != r.name && m.State == StateReady && !no && !slices.Contains(m.Refuses, a.Shard) {
				w.fail("%s suspends shard %d although %s could take it", r.name, a.Shard, m.Name)
			}
		}
	case p.cut && (p.draining || p.now.Sub(p.ailing) >= 2*time.Second):
	case p.draining:
		r.oneAtATime(a)
	case r.was != nil && p.now.Sub(p.ailing) >= 2*time.Second:
		r.oneAtATime(a)
	default:
		if p.now.Sub(p.calm) < 15*time.Second {
			w.fail("%s moves shard %d %v after the members have changed", r.name, a.Shard, p.now.Sub(p.calm))
		}
		load := make(map[string]int)
		for n, c := range p.registry.Claims {
			if n != a.Shard && (c.Owner == "" || c.State != ClaimServing) {
				w.fail("%s moves shard %d while shard %d is not settled: %+v", r.name, a.Shard, n, c)
			}
			load[c.Owner]++
		}
		if load[r.name] < load[a.To.Name]+2 {
			w.fail("%s has %d shards and gives one to %s, which has %d", r.name, load[r.name], a.To.Name, load[a.To.Name])
		}
		r.oneAtATime(a)
	}
	if m, ok := r.p.View().memberState(a.To.Name); a.To.Name != "" && (!ok || m != StateReady) {
		w.fail("%s gives shard %d to %s, which is %q", r.name, a.Shard, a.To.Name, m)
	}
}

func (v View) memberState(name string) (string, bool) {
	m, ok := v.Member(name)
	return m.State, ok
}

// oneAtATime: a replica gives one shard away after the other.
func (r *simReplica) oneAtATime(a Action) {
	for n := range r.p.shards {
		if s := &r.p.shards[n]; n != a.Shard && s.phase == closing && s.to != "" {
			r.w.fail("%s gives shards %d and %d away at a time", r.name, n, a.Shard)
		}
	}
}

// checkCut expects a replica without broker that gives shards away to give all away.
func (w *world) checkCut(r *simReplica, actions []Action) {
	if !r.p.cut || !slices.ContainsFunc(actions, func(a Action) bool { return a.Kind == ActionClose && a.To.Name != "" }) {
		return
	}
	for n := range r.p.shards {
		if s := &r.p.shards[n]; s.phase == serving && !s.claiming && r.p.owns(n) && !w.refused(r, n) {
			w.fail("%s gives shards away because the broker does not answer, and keeps shard %d", r.name, n)
		}
	}
}

// refused tells whether no member takes the shard.
func (w *world) refused(r *simReplica, n int) bool {
	return !slices.ContainsFunc(r.p.registry.Members, func(m Member) bool {
		return m.Name != r.name && m.State == StateReady && !slices.Contains(m.Refuses, n) && !r.p.refused[m.Name].until.After(r.p.now)
	})
}

// checkSeize looks at a shard that gets another owner.
func (w *world) checkSeize(r *simReplica, n int, epoch int64) {
	if owner := w.etcd.owners[[2]int64{int64(n), epoch}]; owner != r.name {
		w.fail("%s opens shard %d under epoch %d, which is of %q", r.name, n, epoch, owner)
	}
	old := w.broker[n].conn
	if old == nil || old == r || w.now-w.restored < chain {
		return
	}
	// Taken from one that serves: only if that could not be asked.
	long := func(since time.Duration) bool { return since >= 0 && w.now-since > chain }
	if since, ok := old.since[n]; ok && old.serving[n] > 0 && long(since) && long(old.answers) && long(r.answers) {
		w.fail("%s takes shard %d from %s, which serves it and answers", r.name, n, old.name)
	}
}

// chain is what a question, a claim and an Open take together at most.
const chain = 10 * time.Second
