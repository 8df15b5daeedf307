package cluster

import (
	"slices"
	"time"
)

// simEtcd is etcd as replicas see it: one register of keys with revisions and leases.
type simEtcd struct {
	w        *world
	revision int64
	lease    int64                   // the last one granted
	leases   map[int64]time.Duration // when each ends, in the world's time
	members  map[string]simMember
	claims   []simClaim
	scout    simScout
	away     bool // answers nothing
	version  int  // counts the changes, a restore included
	backup   *simEtcd
	owners   map[[2]int64]string // of each epoch of each shard that there ever was
}

type simMember struct {
	Member
	lease int64
}

type simClaim struct {
	Claim
	lease int64
}

type simScout struct {
	owner string
	lease int64
}

const simLease = 3 * time.Second

func newSimEtcd(w *world, shards int) *simEtcd {
	return &simEtcd{w: w, leases: make(map[int64]time.Duration), members: make(map[string]simMember), claims: make([]simClaim, shards), owners: make(map[[2]int64]string)}
}

// registry is what a read returns.
func (e *simEtcd) registry() *Registry {
	r := &Registry{Claims: make([]Claim, len(e.claims)), Scout: e.scout.owner}
	for n, c := range e.claims {
		r.Claims[n] = c.Claim
	}
	for _, name := range e.w.names {
		if m, ok := e.members[name]; ok {
			r.Members = append(r.Members, m.Member)
		}
	}
	return r
}

// changed tells the replicas, each after a while.
func (e *simEtcd) changed() {
	e.version++
	for _, r := range e.w.replicas {
		r.watch()
	}
}

func (e *simEtcd) grant() int64 {
	e.lease++
	e.leases[e.lease] = e.w.now + simLease
	e.watchLease(e.lease)
	return e.lease
}

func (e *simEtcd) keepAlive(id int64) bool {
	if _, ok := e.leases[id]; !ok {
		return false
	}
	e.leases[id] = e.w.now + simLease
	return true
}

// watchLease ends a lease in time. A frozen etcd does it when it goes on.
func (e *simEtcd) watchLease(id int64) {
	end, ok := e.leases[id]
	if !ok {
		return
	}
	e.w.at(end, func() {
		switch now, ok := e.leases[id]; {
		case !ok:
		case e.away:
			e.w.after(100*time.Millisecond, func() { e.watchLease(id) })
		case now > e.w.now:
			e.watchLease(id)
		default:
			e.revoke(id)
		}
	})
}

func (e *simEtcd) revoke(id int64) {
	delete(e.leases, id)
	e.revision++
	for name, m := range e.members {
		if m.lease == id {
			delete(e.members, name)
		}
	}
	for n := range e.claims {
		if e.claims[n].lease == id {
			e.claims[n] = e.claims[n].gone()
		}
	}
	if e.scout.lease == id {
		e.scout = simScout{}
	}
	e.changed()
}

// gone is what remains to be known of a claim that is deleted.
func (c simClaim) gone() simClaim { return simClaim{Claim: Claim{Left: c.State == ClaimLeft}} }

func (e *simEtcd) revokeAll() {
	for id := range e.lease {
		if _, ok := e.leases[id+1]; ok {
			e.revoke(id + 1)
		}
	}
}

func (e *simEtcd) put(m Member, lease int64) {
	e.revision++
	e.members[m.Name] = simMember{m, lease}
	e.changed()
}

// write does what an action of a replica writes, on its lease.
func (e *simEtcd) write(self string, lease int64, a Action) bool {
	if _, ok := e.leases[lease]; !ok {
		return false
	}
	switch a.Kind {
	case ActionScout:
		if e.scout.owner != "" {
			return false
		}
		e.scout = simScout{self, lease}
	case ActionNoScout:
		if e.scout.owner != self {
			return false
		}
		e.scout = simScout{}
	default:
		c := &e.claims[a.Shard]
		switch {
		case a.Kind == ActionClaim && c.Owner == "":
			*c = simClaim{Claim{Owner: self, State: ClaimOpening, Base: a.Base, Revision: e.revision + 1}, lease}
		case a.Kind == ActionClaim || c.Owner != self || c.Revision != a.Revision:
			return a.Kind == ActionRelease
		case a.Kind == ActionRelease:
			*c = c.gone()
		case a.Kind == ActionMark:
			c.State, c.To = a.State, a.To.Name
		case a.Kind == ActionRaise:
			c.State, c.To, c.Base = ClaimOpening, "", a.Base
		}
		if c.Owner != "" {
			e.owners[[2]int64{int64(a.Shard), c.Epoch()}] = self
		}
	}
	e.revision++
	e.changed()
	return true
}

// save and restore are a backup and what brings it back: keys, leases and revision.
func (e *simEtcd) save() {
	b := &simEtcd{revision: e.revision, lease: e.lease, leases: make(map[int64]time.Duration), members: make(map[string]simMember), claims: slices.Clone(e.claims), scout: e.scout}
	for id := range e.leases {
		b.leases[id] = 0
	}
	for name, m := range e.members {
		b.members[name] = m
	}
	e.backup = b
}

func (e *simEtcd) restore() {
	b := e.backup
	if b == nil {
		return
	}
	e.backup = nil
	e.revision, e.claims, e.scout, e.members = b.revision, b.claims, b.scout, b.members
	for n := range e.claims {
		e.claims[n].Left = false // everything is read anew
	}
	e.leases = make(map[int64]time.Duration)
	for id := int64(1); id <= b.lease; id++ {
		if _, ok := b.leases[id]; ok {
			e.leases[id] = e.w.now + simLease
			e.watchLease(id)
		}
	}
	e.changed()
}
