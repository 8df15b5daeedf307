package etcd

import (
	"encoding/binary"
	"fmt"
	"testing"

	"external-server/internal/cluster"
)

func testTable() *table { return newTable(keysOf("c"), "a", 4, func(string, error) {}) }

func claims(tab *table) []cluster.Claim {
	r, _ := tab.registry()
	return r.Claims
}

// TestTableKeepsTheNewest: events, reads and own writes come in any order; what is newer
// stays, and a full read removes what it does not have.
func TestTableKeepsTheNewest(t *testing.T) {
	k := keysOf("c")
	claim := func(owner string, mod int64) item {
		return item{value: []byte(encode(claimValue{Owner: owner, State: cluster.ClaimServing})), create: 1, mod: mod, lease: 1}
	}
	tab := testTable()
	owner := func(n int) string { return claims(tab)[n].Owner }
	tab.set(k.shard(0), claim("a", 5))
	tab.set(k.shard(0), claim("b", 4))
	if got := owner(0); got != "a" {
		t.Errorf("an older event: %s", got)
	}
	tab.set(k.shard(0), item{mod: 6})
	tab.set(k.shard(0), claim("a", 5))
	if got := owner(0); got != "" {
		t.Errorf("an event before the deletion: %s", got)
	}
	tab.set(k.shard(1), claim("a", 10))
	tab.set(k.shard(2), claim("a", 7))
	// A read at 8 that was asked for when 7 was the latest: the write at 10 came after it.
	if tab.replace(map[string]item{k.shard(0): claim("c", 8)}, 8, 7) {
		t.Error("taken for restored")
	}
	if owner(0) != "c" || owner(1) != "a" || owner(2) != "" {
		t.Errorf("%+v", claims(tab))
	}
	// A read at 3 although 10 was known when it was asked for: etcd was restored.
	if !tab.replace(map[string]item{k.shard(3): claim("d", 2)}, 3, 10) {
		t.Error("not taken for restored")
	}
	if owner(0) != "" || owner(1) != "" || owner(3) != "d" || tab.latest != 3 {
		t.Errorf("%+v, %d", claims(tab), tab.latest)
	}
}

// FuzzTable: whatever is below the prefix, the registry is one that the planner can take,
// and what is kept is bounded.
func FuzzTable(f *testing.F) {
	k := keysOf("c")
	for _, seed := range []struct{ key, value string }{
		{k.shard(0), `{"owner":"a","state":"serving","base":5}`}, {k.member("a"), `{"state":"ready","refuses":[1,2]}`},
		{k.scout(), "a"}, {k.settings(), `{"format":1,"shards":4}`}, {k.prefix + "members/x/y", "{}"}, {k.shards() + "9999", `{"owner":"a","state":"serving"}`},
	} {
		f.Add(seed.key, []byte(seed.value), []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, key string, value, more []byte) {
		tab := testTable()
		s := &Store{opts: Options{Shards: 4}, keys: k}
		_ = s.agree(value)
		tab.set(key, item{value: value, create: 1, mod: 1, lease: 1})
		for i, b := range more {
			tab.set(fmt.Sprintf("%s%s%d", k.members(), key, i), item{value: value, mod: int64(b), lease: 1})
		}
		if len(more) >= 8 {
			tab.replace(map[string]item{key: {value: value, mod: 2, lease: 1}}, int64(binary.LittleEndian.Uint64(more)), 1)
		}
		r, _ := tab.registry()
		if len(r.Claims) != 4 || len(r.Members) > maxMembers+1 || len(r.Scout) > maxName || len(tab.items) > maxMembers+maxShards+4 {
			t.Errorf("%d claims, %d members, %d keys", len(r.Claims), len(r.Members), len(tab.items))
		}
		for i, m := range r.Members {
			if m.Name == "" || i > 0 && r.Members[i-1].Name >= m.Name {
				t.Errorf("members %+v", r.Members)
			}
		}
		for _, c := range r.Claims {
			if c.Owner == "" && c != (cluster.Claim{}) || c.Epoch() < c.Base {
				t.Errorf("%+v", c)
			}
		}
		for _, it := range tab.items {
			if len(it.value) > maxValue+1 {
				t.Errorf("a value of %d bytes is kept", len(it.value))
			}
		}
	})
}
