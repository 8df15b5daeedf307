package sim

import "time"

// agenda is the virtual time: what is to happen, in order of time and, at equal
// times, of planning.
type agenda struct {
	now   time.Duration // since the start of the history
	seq   uint64
	items []planned // binary heap
}

type planned struct {
	at  time.Duration
	seq uint64
	do  func()
}

func (p planned) before(q planned) bool {
	return p.at < q.at || (p.at == q.at && p.seq < q.seq)
}

// after plans do to happen d from now.
func (a *agenda) after(d time.Duration, do func()) {
	a.seq++
	a.items = append(a.items, planned{at: a.now + max(d, 0), seq: a.seq, do: do})
	for i := len(a.items) - 1; i > 0; {
		parent := (i - 1) / 2
		if !a.items[i].before(a.items[parent]) {
			break
		}
		a.items[i], a.items[parent] = a.items[parent], a.items[i]
		i = parent
	}
}

// next takes what happens next and moves the time to it; nil means that nothing
// happens until limit, where the time stands then.
func (a *agenda) next(limit time.Duration) func() {
	if len(a.items) == 0 || a.items[0].at > limit {
		a.now = limit
		return nil
	}
	first := a.items[0]
	last := len(a.items) - 1
	a.items[0] = a.items[last]
	a.items[last] = planned{}
	a.items = a.items[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if a.items[child].before(a.items[least]) {
				least = child
			}
		}
		if least == i {
			break
		}
		a.items[i], a.items[least] = a.items[least], a.items[i]
		i = least
	}
	a.now = first.at
	return first.do
}
