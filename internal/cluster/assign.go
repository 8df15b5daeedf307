package cluster

import (
	"cmp"
	"slices"
)

// score orders the replicas for one shard: rendezvous hashing. Every replica computes
// the same.
func score(name string, shard int) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * prime
	}
	h = (h ^ uint64(shard)) * prime
	// FNV alone leaves the upper bits of neighbours alike.
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// fleet is the registry as the rules of ownership see it.
type fleet struct {
	registry *Registry
	able     []*Member      // those that may get shards
	load     map[string]int // shards of each owner, counted where they go to
}

// survey finds who may get shards: the ready members or, when there is none, those that
// are not well. An owner that serves badly is better than none.
func survey(r *Registry) fleet {
	f := fleet{registry: r, load: make(map[string]int, len(r.Members))}
	for _, state := range []string{StateReady, StateUnhealthy} {
		for i := range r.Members {
			if r.Members[i].State == state {
				f.able = append(f.able, &r.Members[i])
			}
		}
		if len(f.able) > 0 {
			break
		}
	}
	for _, c := range r.Claims {
		if name := cmp.Or(c.To, c.Owner); name != "" {
			f.load[name]++
		}
	}
	return f
}

// ready tells whether a member that is well may get shards.
func (f *fleet) ready() bool { return len(f.able) > 0 && f.able[0].State == StateReady }

// order returns the able members that take the shard, the best first. Those that could
// not open another one a moment ago come last.
func (f *fleet) order(shard int) []*Member {
	out := make([]*Member, 0, len(f.able))
	for _, m := range f.able {
		if !slices.Contains(m.Refuses, shard) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *Member) int {
		return cmp.Or(cmp.Compare(min(len(a.Refuses), 1), min(len(b.Refuses), 1)),
			cmp.Compare(score(b.Name, shard), score(a.Name, shard)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// heirs returns for each shard without claim who should claim it: the first at once,
// the others one after the other when those before do not. The first is the best that
// has less than its share, so that no replica gets more than its share by chance. The
// result does not depend on the order in which the claims come.
func (f *fleet) heirs() map[int][]*Member {
	if len(f.able) == 0 {
		return nil
	}
	share := (len(f.registry.Claims) + len(f.able) - 1) / len(f.able)
	out := make(map[int][]*Member)
	for shard, c := range f.registry.Claims {
		if c.Owner != "" {
			continue
		}
		order := f.order(shard)
		if len(order) == 0 {
			continue
		}
		first := max(0, slices.IndexFunc(order, func(m *Member) bool { return f.load[m.Name] < share }))
		chosen := order[first]
		f.load[chosen.Name]++
		out[shard] = append([]*Member{chosen}, slices.Delete(order, first, first+1)...)
	}
	return out
}

// least returns the able member other than self with the fewest shards that takes the
// shard, or nil.
func (f *fleet) least(shard int, self string, excluded func(string) bool) *Member {
	var best *Member
	for _, m := range f.order(shard) {
		if m.Name != self && !excluded(m.Name) && (best == nil || f.load[m.Name] < f.load[best.Name]) {
			best = m
		}
	}
	return best
}

// balance returns the shard that self gives to another member so that none has two more
// than another, or nil. It is one shard of the member that has most, so that one moves
// at a time.
func (f *fleet) balance(self string, excluded func(string) bool) (shard int, to *Member) {
	most := f.able[0]
	for _, m := range f.able {
		if f.load[m.Name] > f.load[most.Name] {
			most = m
		}
	}
	if most.Name != self {
		return 0, nil
	}
	for n, c := range f.registry.Claims {
		if c.Owner != self || c.State != ClaimServing {
			continue
		}
		m := f.least(n, self, excluded)
		if m == nil || len(m.Refuses) > 0 || f.load[m.Name]+2 > f.load[self] {
			continue
		}
		better := to == nil || f.load[m.Name] < f.load[to.Name] ||
			f.load[m.Name] == f.load[to.Name] && score(m.Name, n) > score(to.Name, shard)
		if better {
			shard, to = n, m
		}
	}
	return shard, to
}
