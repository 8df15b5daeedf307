package etcd

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"external-server/internal/cluster"
)

// Bounds of what is read below the prefix, where others might write too.
const (
	maxMembers = 64
	memberPage = 2 * maxMembers // members read at once
	// maxMemberPages bounds how many keys of others may be in front of a member's.
	maxMemberPages = 32
	maxValue       = 4096    // bytes of one value
	maxResponse    = 4 << 20 // bytes of one answer of etcd
	maxName        = 64      // bytes of the name of a replica
	maxShards      = 1024    // of config
	keysOfShard    = "%04d"  // sorted as they are counted
	format         = 1       // of what is written here
	maxBase        = 1 << 60 // an epoch never overflows
	root           = "/external-server/"
)

// keys names the keys of one cluster.
type keys struct{ prefix string }

func keysOf(name string) keys { return keys{root + name + "/"} }

func (k keys) members() string           { return k.prefix + "members/" }
func (k keys) member(name string) string { return k.members() + name }
func (k keys) shards() string            { return k.prefix + "shards/" }
func (k keys) shard(n int) string        { return k.shards() + fmt.Sprintf(keysOfShard, n) }
func (k keys) settings() string          { return k.prefix + "settings" }
func (k keys) scout() string             { return k.prefix + "scout" }

// shardOf returns the shard that a key is of.
func (k keys) shardOf(key string) (int, bool) {
	text, ok := strings.CutPrefix(key, k.shards())
	if !ok || len(text) != 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), err == nil && fmt.Sprintf(keysOfShard, n) == text
}

var replicaName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// memberOf returns the name of the member that a key is of.
func (k keys) memberOf(key string) (string, bool) {
	name, ok := strings.CutPrefix(key, k.members())
	return name, ok && len(name) <= maxName && replicaName.MatchString(name)
}

// claimValue is the value of a shard's key.
type claimValue struct {
	Owner string `json:"owner"`
	State string `json:"state"`
	To    string `json:"to,omitempty"`
	Base  int64  `json:"base,omitempty"`
}

// settings is what all replicas must agree on.
type settings struct {
	Format int `json:"format"`
	Shards int `json:"shards"`
}

// encode returns JSON. The values are texts and numbers, for which it cannot fail.
func encode(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// decodeMember reads the value of a member's key.
func decodeMember(name string, value []byte) (cluster.Member, error) {
	var m cluster.Member
	if len(value) > maxValue {
		return m, fmt.Errorf("%d bytes; expected at most %d", len(value), maxValue)
	}
	if err := json.Unmarshal(value, &m); err != nil {
		return m, fmt.Errorf("no member: %w", err)
	}
	switch m.State {
	case cluster.StateJoining, cluster.StateReady, cluster.StateUnhealthy, cluster.StateDraining:
	default:
		return m, fmt.Errorf("the state %.20q is unknown", m.State)
	}
	if len(m.Refuses) > maxShards {
		m.Refuses = m.Refuses[:maxShards]
	}
	m.Name = name
	return m, nil
}

// decodeClaim reads the value of a shard's key.
func decodeClaim(value []byte, revision int64) (cluster.Claim, error) {
	var v claimValue
	if len(value) > maxValue {
		return cluster.Claim{}, fmt.Errorf("%d bytes; expected at most %d", len(value), maxValue)
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return cluster.Claim{}, fmt.Errorf("no claim: %w", err)
	}
	if len(v.Owner) > maxName || !replicaName.MatchString(v.Owner) || len(v.To) > maxName || v.Base < 0 || v.Base > maxBase {
		return cluster.Claim{}, fmt.Errorf("no claim of a replica")
	}
	switch v.State {
	case cluster.ClaimOpening, cluster.ClaimServing, cluster.ClaimLeaving, cluster.ClaimLeft:
	default:
		return cluster.Claim{}, fmt.Errorf("the state %.20q is unknown", v.State)
	}
	return cluster.Claim{Owner: v.Owner, State: v.State, To: v.To, Base: v.Base, Revision: revision}, nil
}
