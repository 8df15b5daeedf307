package cluster

import (
	"errors"
	"strconv"
	"time"
)

// simReplica is one process: a planner, what keeps it in touch with etcd, and a host.
type simReplica struct {
	w       *world
	name    string
	p       *Planner
	life    int // counts the processes of this name
	offset  time.Duration
	rate    float64 // of its clock
	alive   bool
	paused  time.Duration // until when the process does not run; zero: it runs
	backlog []func()      // what comes when it runs again

	noEtcd, noBroker, ill, deaf, broken bool // deaf: no peer reaches it; broken: opens nothing
	was                                 error
	silent                              time.Duration // since when there is no broker; -1: there is one

	member   Member
	lease    int64
	up       bool
	told     bool // whether the planner was told up
	version  int  // of etcd, that the planner knows
	writing  map[int][]Action
	busy     map[int]bool // a call of the host runs for the shard
	opens    int
	serving  map[int]int64 // epochs
	since    map[int]time.Duration
	offers   map[int]time.Duration // shards that another one has handed over, and when
	healthy  time.Duration         // since when it has all it needs; -1: it has not
	answers  time.Duration         // since when peers that ask it hear that it serves; -1: they do not
	ticking  int
	lastTick time.Time
	drainAt  time.Duration // when the drain began; zero: none
	anyCar   bool          // its configuration has "*"
}

var (
	errNoBroker = errors.New("no broker")
	errIll      = errors.New("a module is out of service")
)

// clock is the time of the replica.
func (r *simReplica) clock() time.Time {
	return time.Unix(1_000_000, 0).Add(r.offset + time.Duration(float64(r.w.now)*r.rate))
}

// run calls f in the process as it is now: later while the process is paused, never when
// it has ended.
func (r *simReplica) run(life int, f func()) {
	switch {
	case !r.alive || life != r.life:
	case r.paused > 0:
		r.backlog = append(r.backlog, func() { r.run(life, f) })
	default:
		f()
	}
}

// later calls f in the process after a while.
func (r *simReplica) later(d time.Duration, f func()) {
	life := r.life
	r.w.after(d, func() { r.run(life, f) })
}

func (r *simReplica) start() {
	r.life++
	r.alive, r.paused, r.backlog, r.lease, r.up, r.told, r.version = true, 0, nil, 0, false, false, -1
	r.p = NewPlanner(r.name, len(r.w.etcd.claims), r.anyCar, DefaultTiming())
	r.member = Member{Name: r.name, Instance: strconv.Itoa(r.life), State: StateJoining, Address: r.name}
	r.writing, r.busy, r.serving, r.since = make(map[int][]Action), make(map[int]bool), make(map[int]int64), make(map[int]time.Duration)
	r.offers = make(map[int]time.Duration)
	r.opens, r.was, r.silent, r.drainAt = 0, errors.New("none yet"), -1, 0
	r.lastTick = time.Time{}
	r.w.log("%s starts", r.name)
	r.later(r.w.delay(), r.beat)
	r.look()
}

// kill ends the process; its claims live as long as its lease.
func (r *simReplica) kill() {
	r.w.log("%s is killed", r.name)
	r.alive = false
	r.mark()
	for n := range r.w.broker {
		if r.w.broker[n].conn == r {
			r.w.broker[n].conn = nil
		}
	}
}

func (r *simReplica) pause(d time.Duration) {
	if r.paused > 0 || !r.alive {
		return
	}
	life := r.life
	r.w.log("%s is paused for %v", r.name, d)
	r.paused = r.w.now + d
	r.mark()
	r.w.after(d, func() {
		if life != r.life || !r.alive {
			return
		}
		r.w.log("%s goes on", r.name)
		r.paused = 0
		list := r.backlog
		r.backlog = nil
		for _, f := range list {
			f()
		}
	})
}

// reaches tells whether etcd answers this replica.
func (r *simReplica) reaches() bool { return !r.noEtcd && !r.w.etcd.away }

// beat is what the store does every now and then: a sign of life, and being a member.
func (r *simReplica) beat() {
	r.later(900*time.Millisecond, r.beat)
	r.touch()
}

func (r *simReplica) touch() {
	e := r.w.etcd
	if !r.reaches() {
		r.setUp(false)
		return
	}
	if r.lease == 0 || !e.keepAlive(r.lease) {
		r.lease = 0
		if m, ok := e.members[r.name]; ok && e.keepAlive(m.lease) {
			r.lease = m.lease // of the process before, or of this one
		} else {
			r.lease = e.grant()
		}
	}
	if m, ok := e.members[r.name]; !ok || m.lease != r.lease || !sameMember(m.Member, r.member) {
		e.put(r.member, r.lease)
	}
	r.read()
	r.setUp(true)
}

func sameMember(a, b Member) bool {
	return a.State == b.State && a.Instance == b.Instance && a.Reason == b.Reason && len(a.Refuses) == len(b.Refuses)
}

func (r *simReplica) setUp(up bool) {
	if r.told && up == r.up {
		return
	}
	r.told, r.up = true, up
	r.step(Event{Kind: EventEtcd, OK: up})
}

// read tells the planner what etcd has now.
func (r *simReplica) read() {
	if v := r.w.etcd.version; v != r.version {
		r.version = v
		r.step(Event{Kind: EventRegistry, Registry: r.w.etcd.registry()})
	}
}

// watch brings what etcd has now, after a while.
func (r *simReplica) watch() {
	v, registry := r.w.etcd.version, r.w.etcd.registry()
	r.later(r.w.delay(), func() {
		if r.reaches() && v > r.version {
			r.version = v
			r.step(Event{Kind: EventRegistry, Registry: registry})
			if m, ok := r.w.etcd.members[r.name]; !ok || m.lease != r.lease {
				r.touch()
			}
		}
	})
}

// look tells the planner of its health when that has changed.
func (r *simReplica) look() {
	r.later(250*time.Millisecond, r.look)
	health := error(nil)
	switch {
	case !r.noBroker:
		r.silent = -1
	case r.silent < 0:
		r.silent = r.w.now
	}
	switch silence := r.w.now - r.silent; {
	case r.silent >= 0 && silence >= time.Second:
		if health = r.was; !errors.As(r.was, new(*NoBrokerError)) {
			health = &NoBrokerError{Since: r.clock().Add(-silence)}
		}
	case r.ill:
		health = errIll
	}
	if health != r.was {
		r.was = health
		r.step(Event{Kind: EventHealth, Err: health})
	}
}

func (r *simReplica) step(ev Event) {
	now := r.clock()
	actions := r.p.Step(now, ev)
	for _, a := range actions {
		r.w.log("%s: %v", r.name, a)
		r.w.checkAction(r, a)
	}
	r.w.checkCut(r, actions)
	// Actions are done after the Step, whose slice is not valid during another one.
	list := append([]Action(nil), actions...)
	for _, a := range list {
		r.act(a)
	}
	r.wake()
}

// wake calls the planner when it wants.
func (r *simReplica) wake() {
	at, ok := r.p.Deadline()
	if !ok {
		return
	}
	r.ticking++
	mine := r.ticking
	wait := time.Duration(float64(at.Sub(r.clock()))/r.rate) + time.Microsecond
	r.later(max(0, wait), func() {
		if mine == r.ticking {
			if at.Equal(r.lastTick) {
				r.w.fail("%s wants to be called at %v again and again", r.name, at)
			}
			r.lastTick = at
			r.step(Event{Kind: EventTick})
		}
	})
}

func (r *simReplica) act(a Action) {
	n := a.Shard
	switch a.Kind {
	case ActionPublish:
		r.member.State, r.member.Reason, r.member.Refuses = a.Member.State, a.Member.Reason, append([]int(nil), a.Member.Refuses...)
		r.later(r.w.delay(), r.touch)
	case ActionScout, ActionNoScout:
		r.write(-1, a)
	case ActionClaim, ActionRelease, ActionMark, ActionRaise:
		r.write(n, a)
	case ActionAsk:
		r.ask(n)
	case ActionOpen:
		r.call(n)
		r.opens++
		end := func(err error) {
			r.busy[n] = false
			r.opens--
			r.w.log("%s: opened %d: %v", r.name, n, err)
			r.step(Event{Kind: EventOpened, Shard: n, Err: err})
		}
		r.later(r.w.long(), func() {
			if err := r.readEpoch(n, a.Epoch); err != nil {
				end(err)
				return
			}
			r.later(r.w.delay(), func() { end(r.publish(n, a.Epoch)) })
		})
	case ActionClose:
		r.call(n)
		if a.To.Name == "" {
			r.quit(n) // at once: another one serves it, or none is to
		}
		r.later(r.w.long(), func() {
			r.busy[n] = false
			err := error(nil)
			if a.To.Name != "" {
				if err = r.handOver(n, a.To.Name); err == nil || errors.Is(err, ErrLeft) {
					r.quit(n)
				}
			}
			r.w.log("%s: closed %d: %v", r.name, n, err)
			r.step(Event{Kind: EventClosed, Shard: n, Err: err})
		})
	}
}

func (r *simReplica) call(n int) {
	if r.busy[n] {
		r.w.fail("%s: two calls for shard %d at a time", r.name, n)
	}
	r.busy[n] = true
}

// write makes one write after the other for a shard.
func (r *simReplica) write(queue int, a Action) {
	r.writing[queue] = append(r.writing[queue], a)
	if len(r.writing[queue]) == 1 {
		r.next(queue)
	}
}

func (r *simReplica) next(queue int) {
	a := r.writing[queue][0]
	life, lease := r.life, r.lease
	r.w.after(r.w.delay(), func() { // it arrives, or not, whatever the process does
		ok := r.reaches() && lease != 0 && r.w.etcd.write(r.name, lease, a)
		wait := r.w.delay()
		if !r.reaches() || r.w.chance(0.02) {
			wait = time.Second // the answer is lost
		}
		r.w.after(wait, func() {
			r.run(life, func() {
				if wait == time.Second {
					ok = false
				} else {
					r.read()
				}
				if r.writing[queue] = r.writing[queue][1:]; len(r.writing[queue]) > 0 {
					r.next(queue)
				}
				switch a.Kind {
				case ActionClaim:
					r.step(Event{Kind: EventClaimed, Shard: a.Shard, OK: ok})
				case ActionRelease:
					r.step(Event{Kind: EventReleased, Shard: a.Shard, OK: ok})
				case ActionRaise:
					r.step(Event{Kind: EventRaised, Shard: a.Shard, OK: ok})
				}
			})
		})
	})
}

// ask reads the epoch at the broker and asks its owner.
func (r *simReplica) ask(n int) {
	if at, ok := r.offers[n]; ok && r.w.now-at < 10*time.Second {
		r.later(0, func() { r.step(Event{Kind: EventAnswered, Shard: n}) })
		return
	}
	r.later(r.w.delay(), func() {
		b := &r.w.broker[n]
		if r.noBroker {
			r.later(time.Second, func() { r.step(Event{Kind: EventAnswered, Shard: n, Err: errNoBroker}) })
			return
		}
		if b.by == nil || b.by == r {
			r.step(Event{Kind: EventAnswered, Shard: n})
			return
		}
		if !r.talksTo(b.by) {
			r.later(time.Second, func() { r.step(Event{Kind: EventAnswered, Shard: n}) })
			return
		}
		epoch, serves := b.by.serving[n]
		serves = serves && !b.by.noBroker && !b.by.ill
		answer := Answer{Serving: serves, Owner: Owner{Replica: b.by.name, Epoch: epoch}}
		r.later(r.w.delay(), func() { r.step(Event{Kind: EventAnswered, Shard: n, Answer: answer}) })
	})
}

// talksTo tells whether another one answers requests of this one.
func (r *simReplica) talksTo(o *simReplica) bool {
	return o.alive && o.paused == 0 && !o.deaf && !r.deaf
}

func (r *simReplica) handOver(n int, to string) error {
	for _, o := range r.w.replicas {
		if o.name == to && r.talksTo(o) && !o.noBroker && !o.ill {
			o.offers[n] = r.w.now
			return nil
		}
		// Without broker, and with a next owner that cannot be asked, the word of etcd counts.
		if o.name == to && !r.talksTo(o) && r.p.cut && r.up {
			if state, ok := r.p.View().memberState(to); ok && state == StateReady {
				return ErrLeft
			}
		}
	}
	return errors.New("no answer")
}

// readEpoch compares the epoch with what the broker knows.
func (r *simReplica) readEpoch(n int, epoch int64) error {
	b := &r.w.broker[n]
	switch {
	case r.noBroker:
		return errNoBroker
	case r.broken:
		return errors.New("broken")
	case b.epoch > epoch || b.epoch == epoch && b.by != r:
		return &StaleError{Shard: n, Epoch: epoch, Known: b.epoch}
	}
	return nil
}

// publish takes the connection at the broker and publishes the epoch, whatever was
// published meanwhile.
func (r *simReplica) publish(n int, epoch int64) error {
	if r.noBroker {
		return errNoBroker
	}
	r.w.checkSeize(r, n, epoch)
	if _, ok := r.serving[n]; !ok {
		r.since[n] = r.w.now
		r.w.moves++
	}
	r.serving[n] = epoch
	r.seize(n)
	return nil
}

// seize connects with the shard's client id, and announces the epoch.
func (r *simReplica) seize(n int) {
	b := &r.w.broker[n]
	if old := b.conn; old != nil && old != r {
		old.later(r.w.delay(), func() { old.fenced(n) })
	}
	if b.by != nil && b.by != r && b.epoch == r.serving[n] {
		r.w.fail("%s and %s have shard %d under the same epoch %d", b.by.name, r.name, n, b.epoch)
	}
	b.epoch, b.conn, b.by = r.serving[n], r, r
}

// fenced reads the epoch after the connection was lost: a higher one ends serving, a
// lower one is of somebody who was too slow.
func (r *simReplica) fenced(n int) {
	b := &r.w.broker[n]
	switch own, ok := r.serving[n]; {
	case !ok || b.conn == r:
	case r.noBroker:
		r.later(500*time.Millisecond, func() { r.fenced(n) })
	case b.epoch < own:
		r.w.log("%s takes shard %d back from %s", r.name, n, b.by.name)
		r.seize(n)
	default:
		r.step(Event{Kind: EventLost, Shard: n})
		if _, ok := r.serving[n]; ok && !r.busy[n] {
			r.w.fail("%s was told that shard %d is lost, and serves it", r.name, n)
		}
	}
}

// quit ends serving.
func (r *simReplica) quit(n int) {
	delete(r.serving, n)
	if b := &r.w.broker[n]; b.conn == r {
		b.conn = nil
	}
}
