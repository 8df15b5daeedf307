package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
	"external-server/internal/session/record"
)

// clusterWorld is one car that two or three servers may serve, one at a time: a model of etcd
// assigns it, the broker fences.
type clusterWorld struct {
	*durableWorld
	replicas []*replica
	owner    *replica // who has the claim; nil: there is none
	expires  time.Duration
	epochs   int64                 // create revisions
	next     *replica              // who is to claim first
	claiming bool                  // somebody is about to claim
	lost     map[string][]*replica // accepted statuses, and with whose journal or queue they were lost
	answerer map[string]*replica   // whose answer the broker has
	offered  map[string]bool       // statuses that were handed over, or accepted by the server before
	rnd      *rand.Rand
}

const lease = 3 * time.Second

// PlayCluster plays the history of a seed in which servers of a cluster die, are cut off, halted, and
// hand the car over.
func PlayCluster(seed uint64, traced bool) Result {
	w := &clusterWorld{durableWorld: newDurable(seed, traced), lost: map[string][]*replica{}, answerer: map[string]*replica{}, offered: map[string]bool{}, rnd: rand.New(rand.NewPCG(seed, 21))}
	w.sc.drawCluster(rand.New(rand.NewPCG(seed, 22)))
	for i := range 2 + w.rnd.IntN(2) {
		r := &replica{w: w, name: i, up: true, rnd: rand.New(rand.NewPCG(seed, 30+uint64(i)))}
		r.srv = &durableServer{w: w.durableWorld, rnd: r.rnd, replica: r}
		w.replicas = append(w.replicas, r)
	}
	w.srv = w.replicas[0].srv
	w.atBroker = func(m fleet.ServerMessage) {
		for _, d := range w.sc.Devices {
			w.answerer[string(payload(m.SessionID, m.Counter, d))] = w.broker.owner.replica
		}
	}
	return w.result(w.playCluster)
}

func (w *clusterWorld) playCluster() {
	w.gw.start()
	w.manage()
	w.watchCluster()
	w.excuseFor(recovery)
	for _, a := range w.sc.Actions {
		w.after(a.At, func() { w.actCluster(a) })
	}
	w.after(w.sc.Faults, func() {
		w.trace("--- no faults from here")
		w.healthy = 0
		clear(w.stalled)
		for _, r := range w.replicas {
			r.up, r.noEtcd, r.noBroker, r.frozenUntil = true, 0, 0, min(r.frozenUntil, w.now)
			r.srv.killIn = 0
		}
		if !w.gw.anyPresent() {
			w.gw.joins(0)
		}
		w.excuseFor(recovery)
	})
	w.after(w.sc.Faults+recovery+20*time.Second, func() {
		s := w.serving()
		if s == nil || s.core.Phase() != session.PhaseRunning || w.gw.state != gwRunning || w.gw.session != s.core.ID() {
			w.fail("the car is not served after the last fault: gateway state %d session %q, %+v", w.gw.state, w.gw.session, s)
		}
	})
	for w.err == nil {
		do := w.agenda.next(w.sc.End)
		if do == nil {
			w.accountCluster()
			return
		}
		do()
	}
}

// serving is the server of the owner, if it serves.
func (w *clusterWorld) serving() *durableServer {
	if w.owner == nil || !w.owner.srv.alive {
		return nil
	}
	return w.owner.srv
}

// watchCluster ends an excuse early, see durableWorld.watch.
func (w *clusterWorld) watchCluster() {
	w.after(time.Second, func() {
		w.watchCluster()
		s := w.serving()
		well := s != nil && s.link && w.gw.state == gwRunning && s.core.Phase() == session.PhaseRunning &&
			w.gw.session == s.core.ID() && !w.gw.dropping
		for _, at := range w.gw.outstanding {
			well = well && w.now-at < time.Second
		}
		if !well {
			w.healthy = 0
			return
		}
		if w.healthy++; w.healthy >= 6 {
			w.excusedUntil = min(w.excusedUntil, w.now)
		}
	})
}

// manage is what etcd and the replicas do about the claim.
func (w *clusterWorld) manage() {
	w.after(100*time.Millisecond, func() {
		w.manage()
		if o := w.owner; o != nil {
			switch {
			case o.reachable() && o.srv.alive && !o.healthy():
				o.closes()
				w.release(o)
			case o.reachable() && o.srv.alive:
				w.expires = w.now + lease
			case w.now >= w.expires:
				w.trace("--- the claim of replica %d has expired", o.name)
				w.owner = nil
			}
		}
		if w.owner != nil || w.claiming {
			return
		}
		if r := w.claimant(); r != nil {
			w.claiming = true
			w.after(time.Duration(w.rnd.Int64N(int64(50*time.Millisecond))), func() { w.claim(r) })
		}
	})
}

// claimant chooses who claims. One that serves the car still, and is reachable, claims it again:
// a claim that has vanished is no take-over.
func (w *clusterWorld) claimant() *replica {
	var ready []*replica
	for _, r := range w.replicas {
		switch {
		case !r.reachable() || !r.healthy():
		case r.srv.alive:
			return r
		case r == w.next:
			return r
		default:
			ready = append(ready, r)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	return ready[w.rnd.IntN(len(ready))]
}

func (w *clusterWorld) claim(r *replica) {
	w.claiming, w.next = false, nil
	if w.owner != nil || !r.reachable() {
		return
	}
	w.epochs++
	w.owner, w.expires = r, w.now+lease
	epoch := w.epochs
	if r.srv.alive { // it announces the new epoch over the connection that it has
		w.trace("--- replica %d claims again, epoch %d", r.name, epoch)
		r.epoch, r.fileEpoch, r.claims = epoch, epoch, append(r.claims, epoch)
		if r.srv.link {
			r.srv.out = append(r.srv.out, wireItem{epoch: true})
			r.srv.plan()
		}
		return
	}
	r.srv.soon(time.Duration(w.rnd.Int64N(int64(20*time.Millisecond))), func() {
		if w.owner == r && r.up && !r.srv.alive {
			r.open(epoch)
		}
	})
}

// release deletes the claim of a replica.
func (w *clusterWorld) release(r *replica) {
	if w.owner == r {
		w.owner = nil
	}
}

// discard notes what is lost with the journal of a replica.
func (w *clusterWorld) discard(r *replica) {
	for _, data := range r.left() {
		w.lost[data] = append(w.lost[data], r)
	}
}

// owes notes the statuses that a server answers for the one before, which has accepted them: their answers had to
// wait for others. Their modules are not awaited, so a status may be lost with the server that accepted it.
func (w *clusterWorld) owes(known *record.Session) {
	for _, o := range known.Owed {
		for _, d := range w.sc.Devices {
			if !o.Awaited {
				w.offered[string(payload(known.ID, o.Counter, d))] = true
			}
		}
	}
}

// accountCluster: what was answered was delivered, or was lost with the server that has answered or accepted it, or with
// the one to which that one has handed it over.
func (w *clusterWorld) accountCluster() {
	for _, r := range w.replicas {
		w.discard(r)
	}
	for key, answered := range w.sentBy { // of an awaited module none is: see wasAnswered
		if answered && w.handedIn[key] == 0 && !slices.Contains(w.lost[key], w.answerer[key]) && !(w.offered[key] && len(w.lost[key]) > 0) {
			w.fail("status %q was answered and never handed to its module", key)
		}
	}
}

func (w *clusterWorld) actCluster(a Action) {
	w.trace("--- %v", a)
	w.healthy = 0 // what it excuses shows later
	r := w.replicas[a.N%len(w.replicas)]
	if w.owner != nil && a.N%5 > 0 {
		r = w.owner
	}
	switch a.Kind {
	case Join:
		w.gw.joins(a.N % len(w.sc.Devices))
	case Leave:
		w.gw.leaves(a.N % len(w.sc.Devices))
	case StallModule:
		w.stalled[moduleNumbers[a.N%len(moduleNumbers)]] = w.now + a.For
	case KillServer:
		if a.N%2 == 0 && r.srv.alive {
			r.srv.killIn, r.srv.killFor = 1+a.N/2%6, a.For // in the middle of one of the next writes
			return
		}
		r.die(a.For)
	case StopServer:
		to := w.replicas[w.rnd.IntN(len(w.replicas))]
		if to != r {
			r.handOver(to, 5*time.Second)
		}
	case PauseServer:
		r.frozenUntil = max(r.frozenUntil, w.now+a.For)
	case CutServer:
		switch a.N / 7 % 3 {
		case 0:
			r.noEtcd = w.now + a.For
			return
		case 1:
			r.noEtcd = w.now + a.For
		}
		r.noBroker = max(r.noBroker, w.now+a.For)
		r.srv.cutLink()
	case RestartBroker: // one that stores nothing
		w.excuse()
		w.broker.forget()
		for _, r := range w.replicas {
			if r.srv.conn == w.broker.conn {
				r.srv.cutLink()
			}
		}
	case Operator: // all leases are revoked, or etcd was restored
		w.owner = nil
	case RestartGateway:
		w.excuse()
		w.gw.restart()
	}
}

// drawCluster replaces the actions of a scenario.
func (s *Scenario) drawCluster(rnd *rand.Rand) {
	s.Actions = nil
	s.End = s.Faults + recovery + 25*time.Second
	for i := range s.Every {
		s.Every[i] = []time.Duration{60 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second}[rnd.IntN(3)]
	}
	if every := []time.Duration{0, 100 * time.Millisecond, time.Second}[rnd.IntN(3)]; every > 0 {
		s.CommandEvery = every
	}
	at := 15 * time.Second
	kinds := []Kind{KillServer, KillServer, Operator, StopServer, StopServer, PauseServer, CutServer, CutServer}
	only := kinds[rnd.IntN(len(kinds))]
	mixed := rnd.IntN(3) > 0
	for {
		at += 500*time.Millisecond + time.Duration(rnd.Int64N(int64(20*time.Second)))
		if at > s.Faults {
			return
		}
		a := Action{At: at, Kind: only, N: rnd.IntN(1000), For: time.Duration(rnd.Int64N(int64(12 * time.Second)))}
		if mixed {
			all := append([]Kind{StallModule, Leave, Join, RestartGateway, RestartBroker}, kinds...)
			a.Kind = all[rnd.IntN(len(all))]
		}
		s.Actions = append(s.Actions, a)
		if rnd.IntN(3) > 0 {
			at += a.For
		}
	}
}
