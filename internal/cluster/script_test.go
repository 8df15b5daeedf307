package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"external-server/internal/support/scripttest"
)

// TestScripts plays the conversations in testdata (package scripttest) with the planner
// of the replica "a". Lines of input:
//
//	shards 4               (first; 4 unless said)
//	scout                  (first; cars found by "*" are served)
//	member b ready         etcd has b as a member in that state; refuses=1,2 is kept
//	member b gone
//	claim 1 b serving      etcd has a claim of shard 1; to=NAME, rev=NUMBER, base=NUMBER
//	claim 1 none [left]
//	any-car on|off         a reload has changed whether cars found by "*" are served
//	scout-is b             etcd has a scout; "none"
//	registry               the planner is told what etcd has
//	etcd up|down
//	well                   Host.Health is nil
//	ill no broker          or says that
//	silent 1s              or that the broker has not answered for so long
//	claimed 1 [failed]     a claim was made: etcd has it and the planner is told
//	released 1 [failed]
//	raised 1 [failed]
//	opened 1 [error|stale=NUMBER]
//	closed 1 [error|left]
//	answered 1 free|error|b
//	lost 1
//	drain
//	advance 2s             deadlines on the way are played
//	drained                notes whether the drain has ended
//	view                   notes who serves what
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(s *scripttest.Script) func([]string) {
		return (&stage{Script: s, now: time.Unix(1000, 0), shards: 4, revision: 10}).do
	})
}

type stage struct {
	*scripttest.Script
	p        *Planner
	now      time.Time
	shards   int
	scout    bool
	registry Registry
	revision int64
	bases    map[int]int64
}

func (st *stage) do(w []string) {
	switch w[0] {
	case "shards":
		st.shards = st.int(w[1])
		return
	case "scout":
		st.scout = true
		return
	}
	if st.p == nil {
		st.p = NewPlanner("a", st.shards, st.scout, DefaultTiming())
		st.registry.Claims = make([]Claim, st.shards)
		st.bases = make(map[int]int64)
	}
	ok := len(w) < 3 || w[2] != "failed"
	switch w[0] {
	case "member":
		st.member(w[1:])
	case "claim":
		st.claim(w[1:])
	case "any-car":
		st.step(Event{Kind: EventAnyCar, OK: w[1] == "on"})
	case "scout-is":
		st.registry.Scout = strings.TrimSuffix(w[1], "none")
	case "registry":
		st.tell()
	case "etcd":
		st.step(Event{Kind: EventEtcd, OK: w[1] == "up"})
	case "well":
		st.step(Event{Kind: EventHealth})
	case "ill":
		st.step(Event{Kind: EventHealth, Err: errors.New(strings.Join(w[1:], " "))})
	case "silent":
		d, err := time.ParseDuration(w[1])
		if err != nil {
			st.Fatal("%v", err)
		}
		st.step(Event{Kind: EventHealth, Err: &NoBrokerError{Since: st.now.Add(-d)}})
	case "claimed":
		n := st.int(w[1])
		if ok {
			st.revision++
			st.registry.Claims[n] = Claim{Owner: "a", State: ClaimOpening, Base: st.bases[n], Revision: st.revision}
			st.tell()
		}
		st.step(Event{Kind: EventClaimed, Shard: n, OK: ok})
	case "released":
		n := st.int(w[1])
		if ok {
			st.registry.Claims[n] = Claim{}
			st.tell()
		}
		st.step(Event{Kind: EventReleased, Shard: n, OK: ok})
	case "raised":
		n := st.int(w[1])
		if ok {
			st.registry.Claims[n].Base = st.bases[n]
			st.tell()
		}
		st.step(Event{Kind: EventRaised, Shard: n, OK: ok})
	case "opened":
		st.step(Event{Kind: EventOpened, Shard: st.int(w[1]), Err: st.fault(w[2:], st.int(w[1]))})
	case "closed":
		st.step(Event{Kind: EventClosed, Shard: st.int(w[1]), Err: st.fault(w[2:], st.int(w[1]))})
	case "answered":
		ev := Event{Kind: EventAnswered, Shard: st.int(w[1])}
		switch w[2] {
		case "free":
		case "error":
			ev.Err = errors.New("no broker")
		default:
			ev.Answer = Answer{Serving: true, Owner: Owner{Replica: w[2], Address: w[2] + ":1", Epoch: 5}}
		}
		st.step(ev)
	case "lost":
		st.step(Event{Kind: EventLost, Shard: st.int(w[1])})
	case "drain":
		st.step(Event{Kind: EventDrain})
	case "advance":
		d, err := time.ParseDuration(w[1])
		if err != nil {
			st.Fatal("%v", err)
		}
		st.advance(st.now.Add(d))
	case "drained":
		st.Effect(fmt.Sprint("drained ", st.p.Drained()))
	case "view":
		for n, o := range st.p.View().Shards {
			st.Effect(fmt.Sprintf("%d %+v", n, o))
		}
	default:
		st.Fatal("no input %q", w[0])
	}
}

func (st *stage) int(text string) int { return int(st.Number(text)) }

func (st *stage) fault(w []string, shard int) error {
	if len(w) == 0 {
		return nil
	}
	if known, ok := strings.CutPrefix(w[0], "stale="); ok {
		n, err := strconv.ParseInt(known, 10, 64)
		if err != nil {
			st.Fatal("%v", err)
		}
		return &StaleError{Shard: shard, Known: n}
	}
	if w[0] == "left" {
		return ErrLeft
	}
	return errors.New("failed")
}

func (st *stage) member(w []string) {
	st.registry.Members = slices.DeleteFunc(slices.Clone(st.registry.Members), func(m Member) bool { return m.Name == w[0] })
	if w[1] == "gone" {
		return
	}
	m := Member{Name: w[0], State: w[1], Address: w[0] + ":1"}
	for _, word := range w[2:] {
		if list, ok := strings.CutPrefix(word, "refuses="); ok {
			for n := range strings.SplitSeq(list, ",") {
				m.Refuses = append(m.Refuses, st.int(n))
			}
		}
	}
	st.registry.Members = append(st.registry.Members, m)
	slices.SortFunc(st.registry.Members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
}

func (st *stage) claim(w []string) {
	numbers := []string{w[0]}
	if w[0] == "all" {
		numbers = nil
		for n := range st.shards {
			numbers = append(numbers, strconv.Itoa(n))
		}
	}
	for _, number := range numbers {
		n := st.int(number)
		st.registry.Claims = slices.Clone(st.registry.Claims)
		if w[1] == "none" {
			st.registry.Claims[n] = Claim{Left: len(w) > 2 && w[2] == "left"}
			continue
		}
		st.revision++
		c := Claim{Owner: w[1], State: w[2], Revision: st.revision}
		for _, word := range w[3:] {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "to":
				c.To = value
			case "rev":
				c.Revision = int64(st.int(value))
			case "base":
				c.Base = int64(st.int(value))
			}
		}
		st.registry.Claims[n] = c
	}
}

// tell tells the planner what etcd has.
func (st *stage) tell() {
	r := st.registry
	r.Claims, r.Members = slices.Clone(r.Claims), slices.Clone(r.Members)
	st.step(Event{Kind: EventRegistry, Registry: &r})
}

func (st *stage) step(ev Event) { st.perform(st.p.Step(st.now, ev)) }

// perform notes the actions, and does what etcd does at once.
func (st *stage) perform(actions []Action) {
	for _, a := range actions {
		st.Effect(a.String())
		switch a.Kind {
		case ActionPublish:
			st.member([]string{"a", a.Member.State})
			i := slices.IndexFunc(st.registry.Members, func(m Member) bool { return m.Name == "a" })
			st.registry.Members[i].Refuses = slices.Clone(a.Member.Refuses)
		case ActionMark:
			if c := &st.registry.Claims[a.Shard]; c.Owner == "a" {
				c.State, c.To = a.State, a.To.Name
			}
		case ActionClaim, ActionRaise:
			st.bases[a.Shard] = a.Base
		}
	}
}

// advance lets time pass, with the deadlines that come.
func (st *stage) advance(to time.Time) {
	start, last := st.now, time.Time{}
	for {
		at, ok := st.p.Deadline()
		if !ok || at.After(to) {
			break
		}
		if at.Before(st.now) || !at.After(last) {
			st.Fatal("the planner wants to be called again and again, at %v", at)
		}
		st.now, last = at, at
		if actions := st.p.Step(at, Event{Kind: EventTick}); len(actions) > 0 {
			st.Effect(fmt.Sprintf("after %v:", at.Sub(start)))
			st.perform(actions)
		}
	}
	st.now = to
}
