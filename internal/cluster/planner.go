package cluster

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// Timing holds the times of the planner.
type Timing struct {
	Balance  time.Duration // so long the members are unchanged before shards move for balance
	Unwell   time.Duration // so long health fails, or the broker is silent, before a replica takes no more shards
	GiveAway time.Duration // and before it gives its shards away
	Recover  time.Duration // so long health is good before it takes shards again
	Settle   time.Duration // before the first shards of a cluster without any owner are taken
	Fallback time.Duration // for each replica that should claim before this one, and does not
	AskAgain time.Duration // after an answer that somebody serves, or none
	Retry    time.Duration // after a failed Open, doubled each time
	MaxRetry time.Duration
	Alone    time.Duration // how long a drain waits for etcd
}

// DefaultTiming returns the times of a cluster in service.
func DefaultTiming() Timing {
	return Timing{
		Balance: 15 * time.Second, Unwell: time.Second, GiveAway: 2 * time.Second, Recover: time.Second, Settle: time.Second,
		Fallback: 3 * time.Second, AskAgain: time.Second, Retry: 5 * time.Second, MaxRetry: time.Minute, Alone: 3 * time.Second,
	}
}

// longestWait bounds the lease by which TimingFor reckons: gateways wait 30 s for an answer,
// however long a lease is.
const longestWait = 15 * time.Second

// TimingFor returns the times for a lease: a replica without broker has to give its shards
// away in less time than it takes until the shards of a dead replica are taken over.
func TimingFor(lease time.Duration) Timing {
	t := DefaultTiming()
	lease = min(lease, longestWait)
	t.Unwell, t.GiveAway = lease/3, lease*2/3
	return t
}

// parallel is how many shards are opened at a time.
const parallel = 8

// resend is how long a write that etcd did not take waits before it is tried again.
const resend = 500 * time.Millisecond

// Planner decides what one replica does with the shards. It does no I/O and reads no
// clock: Step tells it what happened and when, and returns what is to be done.
type Planner struct {
	self   string
	timing Timing
	scout  bool // cars found by "*" are served

	now      time.Time
	out      []Action
	wakeAt   time.Time
	registry *Registry // nil: not read yet
	up       bool      // etcd answers
	changed  time.Time // of up
	shards   []shard

	state             string
	published         Member // what the others were told last
	health            error
	ailing, recovered time.Time // since when health is what it is; ailing is zero while it is good
	cut               bool      // the broker does not answer: the cars wait already
	giving            bool      // gives its shards away because it cannot serve
	draining          bool
	drainSince        time.Time
	settled           time.Time          // when the first shards of an empty cluster may be taken
	ready             []string           // names and processes of the ready members
	calm              time.Time          // since when they are these
	refused           map[string]refusal // members that did not take a shard
	scoutSince        time.Time          // since when there is no scout
	scoutAt           time.Time          // when the next claim of it may be tried
}

// refusal is that of a member that did not take a shard.
type refusal struct {
	times int       // in a row
	until time.Time // no shard is offered before
}

// backoff is how long something waits that has failed so many times in a row.
func (t Timing) backoff(times int) time.Duration {
	return min(t.Retry<<min(times-1, 10), t.MaxRetry)
}

// NewPlanner returns the planner of the replica self for that many shards.
func NewPlanner(self string, shards int, scout bool, timing Timing) *Planner {
	return &Planner{self: self, timing: timing, scout: scout, shards: make([]shard, shards), state: StateJoining, refused: make(map[string]refusal)}
}

// Step takes in an event and returns what is to be done, in order. The slice is valid
// until the next Step.
func (p *Planner) Step(now time.Time, ev Event) []Action {
	p.now, p.out, p.wakeAt = now, p.out[:0], time.Time{}
	switch ev.Kind {
	case EventRegistry:
		p.registry = ev.Registry
		p.members()
	case EventEtcd:
		if p.up != ev.OK || p.changed.IsZero() {
			p.up, p.changed = ev.OK, now
		}
	case EventHealth:
		p.healthIs(ev.Err)
	case EventDrain:
		if !p.draining {
			p.draining, p.drainSince = true, now
		}
	case EventAnyCar:
		p.scout = ev.OK
	case EventTick:
	default:
		p.shardEvent(ev)
	}
	p.ownState()
	if p.registry != nil {
		p.tend()
	}
	p.publish()
	return p.out
}

// Deadline returns when Step is to be called although nothing happened.
func (p *Planner) Deadline() (time.Time, bool) { return p.wakeAt, !p.wakeAt.IsZero() }

// Drained tells whether a drain has ended: this replica serves nothing any more.
func (p *Planner) Drained() bool {
	return p.draining && !slices.ContainsFunc(p.shards, func(s shard) bool {
		return s.phase != idle && (p.up || s.phase != releasing) // without etcd the lease ends what is claimed
	})
}

// State returns the state of this replica.
func (p *Planner) State() string { return p.state }

func (p *Planner) do(a Action) { p.out = append(p.out, a) }

// wake asks for a Step at a time.
func (p *Planner) wake(at time.Time) {
	if p.wakeAt.IsZero() || at.Before(p.wakeAt) {
		p.wakeAt = at
	}
}

// reached tells whether a time has come, and asks for a Step when it has not.
func (p *Planner) reached(at time.Time) bool {
	if at.After(p.now) {
		p.wake(at)
		return false
	}
	return true
}

// members notes when the ready members have changed.
func (p *Planner) members() {
	var ready []string
	for _, m := range p.registry.Members {
		if m.State == StateReady {
			ready = append(ready, m.Name+" "+m.Instance)
		}
	}
	if p.calm.IsZero() || !slices.Equal(ready, p.ready) {
		p.ready, p.calm = ready, p.now
		clear(p.refused)
	}
}

func (p *Planner) healthIs(err error) {
	switch {
	case err != nil && p.ailing.IsZero():
		p.ailing = p.now
	case err == nil && (!p.ailing.IsZero() || p.recovered.IsZero()):
		p.ailing, p.recovered = time.Time{}, p.now
	}
	var silent *NoBrokerError
	if p.cut = errors.As(err, &silent); p.cut && silent.Since.Before(p.ailing) {
		p.ailing = silent.Since
	}
	p.health = err
}

// ownState decides what the others are told of this replica.
func (p *Planner) ownState() {
	well := p.ailing.IsZero() && !p.recovered.IsZero()
	switch {
	case p.draining:
		p.state = StateDraining
	case p.state == StateJoining:
		if well && p.registry != nil && p.up {
			p.state, p.settled = StateReady, p.now.Add(p.timing.Settle)
		}
	case !p.ailing.IsZero():
		if p.state == StateReady && p.reached(p.ailing.Add(p.timing.Unwell)) {
			p.state = StateUnhealthy
		}
	case p.state == StateUnhealthy && p.reached(p.recovered.Add(p.timing.Recover)):
		p.state = StateReady
	}
	p.giving = p.state == StateUnhealthy && !p.ailing.IsZero() && p.reached(p.ailing.Add(p.timing.GiveAway))
}

// maxReason bounds what the others are told, in bytes.
const maxReason = 200

// publish tells the others what has changed.
func (p *Planner) publish() {
	m := Member{State: p.state}
	if p.state == StateUnhealthy && p.health != nil {
		m.Reason = p.health.Error()
		if len(m.Reason) > maxReason {
			m.Reason = strings.ToValidUTF8(m.Reason[:maxReason], "") + "…"
		}
	}
	for n := range p.shards {
		if s := &p.shards[n]; s.failures > 0 && s.retry.After(p.now) {
			m.Refuses = append(m.Refuses, n)
			p.wake(s.retry)
		}
	}
	if m.State != p.published.State || m.Reason != p.published.Reason && p.published.Reason == "" || !slices.Equal(m.Refuses, p.published.Refuses) {
		p.published = m
		p.do(Action{Kind: ActionPublish, Member: m})
	}
}

// tend looks at everything there is to do.
func (p *Planner) tend() {
	for n := range p.shards {
		p.shard(n)
	}
	for n := range p.shards { // those that are served before those that are not
		if p.shards[n].phase == queued && p.shards[n].served {
			p.open(n)
		}
	}
	for n := range p.shards {
		if p.shards[n].phase == queued {
			p.open(n)
		}
	}
	if p.draining && !p.up && p.reached(p.changed.Add(p.timing.Alone)) && p.reached(p.drainSince.Add(p.timing.Alone)) {
		p.suspendAll()
		return
	}
	if !p.up {
		return
	}
	f := survey(p.registry)
	p.inherit(&f)
	p.move(&f)
	p.scoutRole(&f)
}

// suspendAll ends serving without etcd and without successor.
func (p *Planner) suspendAll() {
	for n := range p.shards {
		if p.shards[n].phase == serving {
			p.close(n, Member{}, false)
		}
	}
}

// move gives shards away, if there is a reason to: all at once when the broker is not there
// for this replica, as their cars wait already, otherwise one at a time.
func (p *Planner) move(f *fleet) {
	giving := p.draining || p.giving && f.ready()
	for n := range p.shards {
		switch p.shards[n].phase {
		case closing, releasing:
			if !giving || !p.cut {
				return
			}
		}
	}
	excluded := func(name string) bool {
		no, ok := p.refused[name]
		return ok && !p.reached(no.until)
	}
	if giving {
		p.giveAway(f, excluded)
		return
	}
	if p.state != StateReady || len(f.able) < 2 || !f.ready() || !p.reached(p.calm.Add(p.timing.Balance)) {
		return
	}
	for _, c := range p.registry.Claims {
		if c.Owner == "" || c.State != ClaimServing {
			return // one at a time in the whole cluster
		}
	}
	if n, to := f.balance(p.self, excluded); to != nil && p.shards[n].phase == serving && p.reached(p.shards[n].retry) {
		p.handOver(n, to)
	}
}

// giveAway hands the first shard that is served to another member, without broker every one. A
// replica that ends suspends it when there is none to take it.
func (p *Planner) giveAway(f *fleet, excluded func(string) bool) {
	for n := range p.shards {
		s := &p.shards[n]
		if s.phase != serving || s.claiming || !p.owns(n) {
			continue
		}
		to := (*Member)(nil)
		if f.ready() {
			to = f.least(n, p.self, excluded)
		}
		switch {
		case to != nil:
			p.handOver(n, to)
			if !p.cut {
				return
			}
			f.load[to.Name]++
			f.load[p.self]--
		case p.draining:
			p.close(n, Member{}, false)
		}
	}
}

func (p *Planner) handOver(n int, to *Member) {
	p.do(Action{Kind: ActionMark, Shard: n, Revision: p.claim(n).Revision, State: ClaimLeaving, To: *to})
	p.close(n, *to, false)
}

// scoutRole sees to it that one member looks out for cars found by "*".
func (p *Planner) scoutRole(f *fleet) {
	switch {
	case p.registry.Scout == p.self:
		p.scoutSince = time.Time{}
		if (!p.scout || p.state != StateReady && f.ready()) && p.reached(p.scoutAt) {
			p.scoutAt = p.now.Add(resend)
			p.wake(p.scoutAt)
			p.do(Action{Kind: ActionNoScout})
		}
	case p.scout && p.registry.Scout == "":
		if p.scoutSince.IsZero() {
			p.scoutSince = p.now
		}
		order := f.order(len(p.shards)) // the number after that of the last shard
		rank := slices.IndexFunc(order, func(m *Member) bool { return m.Name == p.self })
		if rank >= 0 && p.reached(p.scoutSince.Add(time.Duration(rank)*p.timing.Fallback)) && p.reached(p.scoutAt) {
			p.scoutAt = p.now.Add(resend)
			p.wake(p.scoutAt)
			p.do(Action{Kind: ActionScout})
		}
	default:
		p.scoutSince = time.Time{}
	}
}

// stale returns the epoch that the broker knows when that is why a shard could not be
// opened.
func stale(err error) (known int64, ok bool) {
	var e *StaleError
	if errors.As(err, &e) {
		return e.Known, true
	}
	return 0, false
}

// View returns what the planner knows. Whether etcd answers is not in it.
func (p *Planner) View() View {
	v := View{Self: p.self, Shards: make([]Owner, len(p.shards))}
	if p.registry == nil {
		return v
	}
	v.Members, v.Scout = p.registry.Members, p.registry.Scout
	for n := range v.Shards {
		c := p.claim(n)
		if c.Owner == "" {
			s := &p.shards[n]
			v.Shards[n] = s.answer
			if s.answer.Replica == "" && (v.Orphaned.IsZero() || s.orphaned.Before(v.Orphaned)) {
				v.Orphaned = s.orphaned
			}
			continue
		}
		v.Shards[n] = Owner{Replica: c.Owner, Epoch: c.Epoch(), State: c.State, To: c.To}
		if m, ok := v.Member(c.Owner); ok {
			v.Shards[n].Address = m.Address
		}
	}
	return v
}
