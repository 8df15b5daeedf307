package sim

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"time"

	"external-server/internal/session"
	"external-server/internal/session/record"
)

// replica is one server of a cluster: a process that may serve the car, with a journal of its own.
type replica struct {
	w    *clusterWorld
	name int
	srv  *durableServer
	rnd  *rand.Rand

	up          bool          // the process lives
	epoch       int64         // of its claim, as far as it knows
	until       int64         // up to this epoch no other replica has served the sessions that it has
	claims      []int64       // its own epochs that the broker may have
	fileEpoch   int64         // under which its journal was written
	frozenUntil time.Duration // it does nothing before (SIGSTOP)
	noEtcd      time.Duration // until then it reaches neither etcd nor its peers
	noBroker    time.Duration // until then
	lonely      time.Duration // since when the broker is not reached
	offered     [][]byte      // what the owner before has handed over
	offeredFor  time.Duration // until then it counts
	offeredBy   int64         // epoch of that owner: it counts for as long as no other has served
}

// carry writes the session's record in front of what the step causes (RES-22).
func (s *durableServer) carry() {
	if v := s.core.Version(); v != s.version {
		s.version = v
		s.out = append(s.out, wireItem{carry: true, record: s.core.AppendCarried(nil)})
	}
}

// mayConnect asks the broker for the epoch before the next attempt (RES-25); again: there was a
// connection before.
func (r *replica) mayConnect(again bool) bool {
	if r.w.now < r.noBroker {
		r.srv.soon(r.noBroker-r.w.now, r.srv.connect)
		return false
	}
	return !again || r.permitted()
}

func (r *replica) permitted() bool {
	at := slices.Index(r.claims, r.w.broker.epoch)
	if at >= 0 { // told over its connection
		r.until, r.claims = r.w.broker.epoch, r.claims[at:]
	}
	if r.w.broker.epoch <= r.until {
		return true
	}
	r.w.trace("--- replica %d is fenced off: epoch %d, its own is %d with the sessions of %d", r.name, r.w.broker.epoch, r.epoch, r.until)
	r.closes()
	return false
}

// announces asks once more, as soon as the broker has accepted the connection, and publishes epoch and record first.
func (r *replica) announces() bool {
	if !r.permitted() {
		return false
	}
	r.srv.out = append(r.srv.out[:0], wireItem{epoch: true}, wireItem{carry: true, record: r.srv.core.AppendCarried(nil)})
	return true
}

// closes stops serving without a word.
func (r *replica) closes() {
	s := r.srv
	if !s.alive {
		return
	}
	s.append()
	s.drop()
	if s.link = false; s.conn == r.w.broker.conn && r.w.broker.connected {
		r.w.broker.cut(false)
	}
	s.lostAt = r.w.now
}

// die ends the process, which comes back.
func (r *replica) die(in time.Duration) {
	if !r.up {
		return
	}
	r.w.trace("--- replica %d dies", r.name)
	r.srv.kill(false)
	r.up, r.offered, r.frozenUntil = false, nil, 0
	r.w.after(in, func() { r.up = true })
}

// open serves the car under a new epoch.
func (r *replica) open(epoch int64) {
	s, b := r.srv, &r.w.broker
	if r.w.now < r.noBroker {
		r.w.release(r)
		return
	}
	before := b.epoch
	r.epoch, r.until, r.claims = epoch, before, []int64{epoch}
	var known *record.Resumption
	switch {
	case len(r.offered) > 0 && r.w.now < r.offeredFor && r.offeredBy == before:
		r.w.trace("--- replica %d opens with what was handed over, epoch %d", r.name, epoch)
		r.w.discard(r)
		r.fileEpoch, s.file, r.offered = epoch, r.offered, nil
		known = r.fold()
		s.lostAt = r.w.now - time.Millisecond
	case before > 0 && r.fileEpoch == before:
		r.w.trace("--- replica %d goes on from its journal, epoch %d", r.name, epoch)
		r.fileEpoch = epoch
		known = r.fold()
	default:
		r.w.trace("--- replica %d takes over, epoch %d after %d", r.name, epoch, before)
		r.w.discard(r)
		r.fileEpoch, s.file = epoch, nil
		r.seize(epoch)
		if data := b.record; len(data) > 0 {
			var err error
			if known, err = record.Carried(durableCar, data); err != nil {
				r.w.fail("the record: %v", err)
				return
			}
			r.w.trace("--- record %+v", known.Record)
		}
		s.lostAt = r.w.now - time.Second
	}
	if known == nil || known.Record == nil {
		r.w.excuse() // a connect sequence, or nothing
	}
	s.goOn(known)
}

// seize ends the connection of the replica that serves the car (RES-25).
func (r *replica) seize(epoch int64) {
	b := &r.w.broker
	b.takeOver()
	b.conn++
	b.connected = false
	b.session = true
	b.epoch = epoch
}

func (r *replica) fold() *record.Resumption {
	f := record.NewFold()
	for _, rec := range r.srv.file {
		if err := f.Apply(rec); err != nil {
			r.w.fail("the journal: %v", err)
		}
	}
	known, err := f.Car(durableCar)
	if err != nil {
		r.w.fail("the journal: %v", err)
	}
	return known
}

// handOver gives the car to another replica at a message boundary.
func (r *replica) handOver(to *replica, patience time.Duration) {
	s := r.srv
	if !s.alive || r.w.owner != r || !to.reachable() || r.w.now < r.noEtcd || s.frozen() {
		return
	}
	if phase := s.core.Phase(); phase != session.PhaseRunning && phase != session.PhaseWaiting && patience > 0 {
		s.soon(100*time.Millisecond, func() { r.handOver(to, patience-100*time.Millisecond) })
		return
	}
	if !s.link {
		return
	}
	r.w.trace("--- replica %d hands over to %d", r.name, to.name)
	s.killIn = 0
	s.flush()
	s.file = append(s.file, s.core.AppendSettled(nil))
	running := s.core.Phase() == session.PhaseRunning
	s.drop()
	s.link = false
	r.w.broker.cut(true)
	if !running || r.w.gw.state != gwRunning {
		r.w.excuse()
	}
	for _, data := range r.left() {
		r.w.offered[data] = true
	}
	to.offered = nil
	f := record.NewFold()
	for _, rec := range s.file {
		if err := f.Apply(rec); err != nil {
			r.w.fail("the journal: %v", err)
		}
	}
	f.Snapshot(func(rec []byte) { to.offered = append(to.offered, bytes.Clone(rec)) })
	to.offeredFor, to.offeredBy = r.w.now+10*time.Second, r.w.broker.epoch
	r.w.release(r)
	r.w.next = to
}

func (r *replica) reachable() bool { return r.up && r.w.now >= r.noEtcd && r.w.now >= r.frozenUntil }

// healthy tells whether it may own the car: it reaches the broker, or has lost it just now.
func (r *replica) healthy() bool {
	if r.w.now >= r.noBroker {
		r.lonely = 0
		return true
	}
	if r.lonely == 0 {
		r.lonely = r.w.now
	}
	return r.w.now-r.lonely < 2*time.Second
}

// left are the statuses in its journal that no module has confirmed.
func (r *replica) left() (out []string) {
	f := record.NewFold()
	for _, rec := range r.srv.file {
		if f.Apply(rec) != nil {
			return out
		}
	}
	known, _ := f.Car(durableCar)
	if known != nil {
		for _, l := range known.Left {
			out = append(out, string(l.Data))
		}
	}
	for _, w := range r.srv.workers {
		if w == nil {
			continue
		}
		for _, j := range w.jobs {
			if j.kind == jobStatus {
				out = append(out, j.data)
			}
		}
	}
	return slices.Compact(out)
}
