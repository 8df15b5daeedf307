package cluster

import (
	"math/rand/v2"
	"time"
)

// reloads plans configurations with and without "*" that replicas load while everything fails: one of them, or
// all one after another. Their random numbers are of their own.
func (w *world) reloads(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 8))
	for _, r := range w.replicas {
		r.anyCar = true
	}
	w.anyCar = rng.IntN(5) > 0
	for range rng.IntN(4) {
		on, some := rng.IntN(2) == 0, w.replicas
		if i := rng.IntN(2 * len(some)); i < len(some) {
			some = some[i : i+1]
		}
		at := time.Duration(rng.Int64N(int64(60 * time.Second)))
		for _, r := range some {
			at += time.Duration(rng.Int64N(int64(2 * time.Second)))
			w.at(at, func() {
				if !w.calm {
					r.reload(on)
				}
			})
		}
	}
}

// reload says whether the configuration of the replica has "*" from now on. A process that does not run
// hears of it later, one that is not there reads it at its start.
func (r *simReplica) reload(anyCar bool) {
	r.w.log("%s loads a configuration with \"*\": %v", r.name, anyCar)
	r.anyCar = anyCar
	r.later(0, func() { r.step(Event{Kind: EventAnyCar, OK: anyCar}) })
}

// checkScout expects one that is ready to look out for cars found by "*", as long as there is one and all have "*" in
// their configurations, and else that no replica which runs has the role.
func (w *world) checkScout(when string, able int) {
	owner := w.etcd.scout.owner
	if !w.anyCar {
		if owner != "" {
			w.fail("%s: the scout is %q, and no configuration has \"*\"", when, owner)
		}
		return
	}
	if able == 0 {
		return
	}
	for _, r := range w.replicas {
		if r.name == owner && r.alive && r.p.state == StateReady {
			return
		}
	}
	w.fail("%s: the scout is %q", when, owner)
}
