package etcd

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"external-server/internal/cluster"
)

// item is one key as etcd had it last.
type item struct {
	value  []byte // nil: deleted
	create int64
	mod    int64 // revision of the last change
	lease  int64
	left   bool // deleted by an owner that had said that it serves the shard no more
	stray  bool // there is something on no lease, so no server has written it; value is nil then
}

func itemOf(kv *mvccpb.KeyValue) item {
	return item{value: kv.Value, create: kv.CreateRevision, mod: kv.ModRevision, lease: kv.Lease}
}

// table holds the keys of one cluster, each as new as any answer of etcd has told: events
// of the watch, full reads and own writes arrive in any order.
type table struct {
	keys   keys
	own    string // the key of this server, for which there is always room
	shards int
	items  map[string]item // those that are expected, and those that were deleted
	latest int64           // highest revision seen
	odd    map[string]bool // keys of others that were told of in the log
	inWay  map[string]bool // the same, of keys in place of those of servers
	report func(key string, err error)
}

// maxOdd bounds how many keys of others are told of. Those in place of the servers' own are
// counted apart: they are as many as there are such keys.
const maxOdd = 20

func newTable(k keys, self string, shards int, report func(string, error)) *table {
	return &table{
		keys: k, own: k.member(self), shards: shards, report: report,
		items: make(map[string]item), odd: make(map[string]bool), inWay: make(map[string]bool),
	}
}

// known tells whether a key is one of this server's. What others write below the prefix
// takes no memory.
func (t *table) known(key string) bool {
	if key == t.keys.settings() || key == t.keys.scout() {
		return true
	}
	if n, ok := t.keys.shardOf(key); ok {
		return n < maxShards
	}
	if _, ok := t.keys.memberOf(key); !ok {
		return false
	}
	if _, ok := t.items[key]; ok || key == t.own {
		return true
	}
	return t.count() < maxMembers
}

// count returns the number of members, and forgets those that are gone when there are
// many.
func (t *table) count() int {
	n := 0
	for key := range t.items {
		if _, ok := t.keys.memberOf(key); ok {
			n++
		}
	}
	if n < maxMembers {
		return n
	}
	for key, it := range t.items {
		if _, ok := t.keys.memberOf(key); ok && it.value == nil {
			delete(t.items, key)
			n--
		}
	}
	return n
}

// set takes in what etcd says of a key, unless something newer is known.
func (t *table) set(key string, it item) {
	t.latest = max(t.latest, it.mod)
	if !t.known(key) {
		t.strange(key, nil)
		return
	}
	if it.value != nil && it.lease == 0 && key != t.keys.settings() {
		// What a server writes goes with its lease; this would stay for ever.
		t.strange(key, errNoLeaseOfKey)
		it.value, it.stray = nil, true
	}
	if len(it.value) > maxValue {
		it.value = it.value[: maxValue+1 : maxValue+1] // decoding says the rest
	}
	if old, ok := t.items[key]; !ok || it.mod > old.mod {
		t.items[key] = it
	}
}

// event takes in what the watch tells. It misses none, so it knows what was deleted.
func (t *table) event(key string, it item) {
	if n, ok := t.keys.shardOf(key); ok && it.value == nil && n < t.shards {
		claim, err := decodeClaim(t.items[key].value, 0)
		it.left = err == nil && claim.State == cluster.ClaimLeft
	}
	t.set(key, it)
}

// replace takes in a full read at a revision that was asked for when floor was the
// latest. What was written since stays, unless etcd counts from a lower number than
// before: it was restored, and everything else is void.
func (t *table) replace(all map[string]item, revision, floor int64) (restored bool) {
	restored = revision < floor
	if restored {
		clear(t.items)
		t.latest = 0
	}
	for key, it := range all {
		t.set(key, it)
	}
	for key, it := range t.items {
		if _, there := all[key]; !there && it.mod <= revision && (it.value != nil || it.stray || it.left) {
			t.items[key] = item{mod: revision}
		}
	}
	t.latest = max(t.latest, revision)
	return restored
}

// registry returns what the planner needs, and what others have put in place of what it needs.
func (t *table) registry() (*cluster.Registry, []obstacle) {
	r := &cluster.Registry{Claims: make([]cluster.Claim, t.shards)}
	var obstacles []obstacle
	for _, key := range slices.Sorted(maps.Keys(t.items)) {
		it := t.items[key]
		if n, ok := t.keys.shardOf(key); ok && n < t.shards {
			r.Claims[n].Left = it.left
		}
		if it.stray && t.ours(key) {
			obstacles = append(obstacles, t.obstacle(key, it, errNoLeaseOfKey))
		}
		if it.value == nil {
			continue
		}
		var err error
		if n, ok := t.keys.shardOf(key); ok {
			if n < t.shards {
				r.Claims[n], err = decodeClaim(it.value, it.create)
			}
		} else if name, ok := t.keys.memberOf(key); ok {
			var m cluster.Member
			if m, err = decodeMember(name, it.value); err == nil {
				r.Members = append(r.Members, m)
			}
		} else if key == t.keys.scout() {
			if len(it.value) <= maxName && replicaName.Match(it.value) {
				r.Scout = string(it.value)
			} else {
				err = errors.New("no name of a replica")
			}
		}
		if err == nil {
			continue
		}
		t.strange(key, err)
		if t.ours(key) {
			obstacles = append(obstacles, t.obstacle(key, it, err))
		}
	}
	slices.SortFunc(r.Members, func(a, b cluster.Member) int { return cmp.Compare(a.Name, b.Name) })
	return r, obstacles
}

// ours tells whether servers cannot do without the key: what others put there is in the way.
func (t *table) ours(key string) bool {
	n, ok := t.keys.shardOf(key)
	return ok && n < t.shards || key == t.keys.scout() || key == t.own
}

// strange tells once of a key that is not ours, or not as we write it.
func (t *table) strange(key string, err error) {
	told, room := t.odd, len(t.odd) < maxOdd
	if t.ours(key) {
		told, room = t.inWay, true
	}
	if told[key] || !room {
		return
	}
	told[key] = true
	t.report(key, err)
}
