package cluster

import (
	"errors"
	"slices"
	"time"
)

// phase is what this replica does with a shard.
type phase int

const (
	idle      phase = iota // nothing; perhaps another replica has it
	asking                 // the owner before is asked
	claiming               // a claim is being tried
	queued                 // claimed, waits until it may be opened
	opening                // Host.Open runs
	serving                // cars are answered
	closing                // Host.Close runs
	releasing              // served no more, the claim is being given up
)

// shard is what the planner knows of one shard beyond the registry.
type shard struct {
	phase    phase
	served   bool      // with queued and opening: served under an older epoch meanwhile
	claiming bool      // with serving: the claim had vanished and is being taken again
	raising  bool      // a higher epoch is being written
	lost     bool      // with opening: the broker says that another replica serves it
	epoch    int64     // under which it is served, or opened
	to       string    // with closing: who gets it
	again    time.Time // when the next claim, question or write may be tried
	retry    time.Time // when the next Open or hand-over may be tried
	failures int       // of Open, in a row
	orphaned time.Time // since when there is no claim; zero while there is one
	promised string    // to whom the last owner handed it over
	received bool      // the claim that was tried last followed such a promise
	base     int64     // of the last claim
	answer   Owner     // who says that it serves the shard without claim
}

func (p *Planner) claim(n int) Claim {
	if n < len(p.registry.Claims) {
		return p.registry.Claims[n]
	}
	return Claim{}
}

func (p *Planner) owns(n int) bool { return p.claim(n).Owner == p.self }

// shardEvent takes in what was to be done for a shard and is done.
func (p *Planner) shardEvent(ev Event) {
	if ev.Shard < 0 || ev.Shard >= len(p.shards) {
		return
	}
	n, s := ev.Shard, &p.shards[ev.Shard]
	switch ev.Kind {
	case EventAnswered:
		p.answered(n, ev)
	case EventClaimed:
		s.claiming, s.again = false, p.now
		if !ev.OK {
			s.again = p.now.Add(resend)
		}
		if s.phase == claiming {
			s.phase = idle // the registry says the rest
		}
	case EventOpened:
		p.opened(n, ev.Err)
	case EventClosed:
		p.closed(n, ev.Err)
	case EventReleased:
		if s.phase == releasing && !ev.OK {
			s.again = p.now.Add(resend)
		}
	case EventRaised:
		s.raising = false
		if !ev.OK {
			s.again = p.now.Add(resend)
		}
	case EventLost:
		switch {
		case s.phase == serving, s.phase == queued && s.served:
			p.close(n, Member{}, true)
		case s.phase == opening && s.served:
			s.lost = true
		}
	}
}

// shard brings in line what this replica does with a shard and what etcd holds.
func (p *Planner) shard(n int) {
	s, c := &p.shards[n], p.claim(n)
	if c.Owner == "" {
		if s.orphaned.IsZero() {
			s.orphaned = p.now
		}
	} else {
		s.orphaned, s.promised, s.base, s.answer = time.Time{}, "", c.Base, Owner{}
		if c.Owner != p.self {
			s.received = false
		}
		if c.State == ClaimLeaving || c.State == ClaimLeft {
			s.promised = c.To
		}
	}
	mine := c.Owner == p.self
	switch s.phase {
	case idle:
		if !mine {
			return
		}
		if p.draining || !p.reached(s.retry) {
			p.release(n)
			return
		}
		s.phase, s.served, s.again = queued, false, p.now
	case asking, claiming:
		if mine && !p.draining {
			s.phase, s.served, s.again = queued, false, p.now
		}
	case queued:
		switch {
		case !mine && s.served:
			s.phase = serving
		case !mine:
			s.phase = idle
		case p.draining && !s.served:
			p.release(n)
		}
	case serving:
		p.served(n, c)
	case releasing:
		if !mine {
			s.phase = idle
			return
		}
		if p.up && p.reached(s.again) {
			p.release(n)
		}
	}
}

// served looks after a shard that is served.
func (p *Planner) served(n int, c Claim) {
	s := &p.shards[n]
	switch {
	case c.Owner == "":
		// The claim has vanished, the shard has not: it is claimed again at once.
		if p.up && !s.claiming && p.reached(s.again) {
			s.claiming = true
			s.again = p.now.Add(resend)
			p.do(Action{Kind: ActionClaim, Shard: n, Base: s.base})
		}
	case c.Owner != p.self:
		p.close(n, Member{}, true)
	case c.Epoch() != s.epoch && !s.raising && p.reached(s.again):
		s.phase, s.served = queued, true // announce the new epoch
	case c.State != ClaimServing && c.Epoch() == s.epoch && p.up && p.reached(s.again):
		s.again = p.now.Add(resend)
		p.wake(s.again)
		p.do(Action{Kind: ActionMark, Shard: n, Revision: c.Revision, State: ClaimServing})
	}
}

func (p *Planner) open(n int) {
	busy := 0
	for i := range p.shards {
		if p.shards[i].phase == opening {
			busy++
		}
	}
	s := &p.shards[n]
	if busy >= parallel || s.raising || !p.reached(s.again) {
		return
	}
	s.phase, s.epoch = opening, p.claim(n).Epoch()
	p.do(Action{Kind: ActionOpen, Shard: n, Epoch: s.epoch, Again: s.served, Promised: s.received})
}

func (p *Planner) opened(n int, err error) {
	s := &p.shards[n]
	if s.phase != opening {
		return
	}
	mine := p.registry != nil && p.owns(n)
	known, behind := stale(err)
	switch {
	case s.lost && err != nil: // while the new epoch was to be announced
		p.close(n, Member{}, true)
	case err == nil:
		s.phase, s.failures, s.again, s.lost = serving, 0, p.now, false
	case behind && mine:
		// etcd counts from a lower number than the broker knows: it was restored.
		s.phase, s.raising = queued, true
		p.do(Action{Kind: ActionRaise, Shard: n, Revision: p.claim(n).Revision, Base: known})
	case s.served:
		s.phase, s.again = serving, p.now.Add(p.timing.AskAgain)
		s.epoch = 0 // the new one is not announced yet
	default:
		s.failures++
		s.retry = p.now.Add(p.timing.backoff(s.failures))
		s.phase, s.again = releasing, p.now
	}
}

func (p *Planner) close(n int, to Member, lost bool) {
	s := &p.shards[n]
	s.phase, s.to, s.lost = closing, to.Name, false
	p.do(Action{Kind: ActionClose, Shard: n, To: to, Lost: lost})
}

func (p *Planner) closed(n int, err error) {
	s := &p.shards[n]
	if s.phase != closing {
		return
	}
	if errors.Is(err, ErrLeft) {
		// The next owner need not ask this one, which it may not reach.
		p.do(Action{Kind: ActionMark, Shard: n, Revision: p.claim(n).Revision, State: ClaimLeft, To: Member{Name: s.to}})
		err = nil
	}
	if err != nil && s.to != "" {
		// The other one did not take it. This replica goes on.
		times := p.refused[s.to].times + 1
		p.refused[s.to] = refusal{times, p.now.Add(p.timing.backoff(times))}
		s.phase, s.again = serving, p.now
		return
	}
	delete(p.refused, s.to)
	s.phase, s.again = releasing, p.now
}

// release gives a claim up.
func (p *Planner) release(n int) {
	s := &p.shards[n]
	s.phase, s.again = releasing, p.now.Add(2*resend)
	p.do(Action{Kind: ActionRelease, Shard: n, Revision: p.claim(n).Revision})
	p.wake(s.again)
}

// inherit asks for, and claims, the shards without claim that fall to this replica.
func (p *Planner) inherit(f *fleet) {
	all := f.heirs()
	for n := range p.shards {
		s, heirs := &p.shards[n], all[n]
		if s.phase != idle || len(heirs) == 0 {
			continue
		}
		rank := slices.IndexFunc(heirs, func(m *Member) bool { return m.Name == p.self })
		if rank < 0 || p.draining {
			continue
		}
		wait := time.Duration(rank) * p.timing.Fallback
		promised := slices.IndexFunc(heirs, func(m *Member) bool { return m.Name == s.promised }) >= 0
		switch {
		case promised && s.promised == p.self:
			wait = 0
		case promised: // the one that it was handed over to comes first
			wait = time.Duration(rank+1) * p.timing.Fallback
		}
		if !p.reached(s.orphaned.Add(wait)) || !p.reached(s.again) || !p.reached(s.retry) || p.empty() && !p.reached(p.settled) {
			continue
		}
		if p.claim(n).Left {
			s.received = false
			p.tryClaim(n)
			continue
		}
		// It is asked also when it was promised: the claim may have vanished before the
		// owner has handed the shard over.
		s.phase, s.received = asking, promised && s.promised == p.self
		p.do(Action{Kind: ActionAsk, Shard: n})
	}
}

// empty tells whether no shard has an owner.
func (p *Planner) empty() bool {
	return !slices.ContainsFunc(p.registry.Claims, func(c Claim) bool { return c.Owner != "" })
}

func (p *Planner) tryClaim(n int) {
	s := &p.shards[n]
	s.phase = claiming
	p.do(Action{Kind: ActionClaim, Shard: n, Base: s.base})
}

func (p *Planner) answered(n int, ev Event) {
	s := &p.shards[n]
	if s.phase != asking {
		return
	}
	s.phase = idle
	switch {
	case ev.Err != nil || p.draining || !p.up || p.registry == nil || p.claim(n).Owner != "":
		s.again = p.now.Add(p.timing.AskAgain)
	case ev.Answer.Serving:
		s.again, s.answer = p.now.Add(p.timing.AskAgain), ev.Answer.Owner
	default:
		s.answer = Owner{}
		p.tryClaim(n)
	}
}
