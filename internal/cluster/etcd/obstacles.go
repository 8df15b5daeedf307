package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"external-server/internal/cluster"
)

// errNoLeaseOfKey is why a key is none of a server's.
var errNoLeaseOfKey = errors.New("it is on no lease")

// obstacle is something that others have put in place of a key without which servers cannot do.
type obstacle struct {
	key string
	mod int64
	why error
	// removable: no server can have written it. What cannot be read and is on the lease of a member
	// may be of a program of another version.
	removable bool
}

func (t *table) obstacle(key string, it item, why error) obstacle {
	return obstacle{key: key, mod: it.mod, why: why, removable: it.stray || key != t.own && !t.leased(it.lease)}
}

// leased tells whether a member has the lease.
func (t *table) leased(lease int64) bool {
	for key, it := range t.items {
		if _, ok := t.keys.memberOf(key); ok && it.value != nil && it.lease == lease {
			return true
		}
	}
	return false
}

// effect says what a key in the way keeps from happening.
func (s *Store) effect(key string) string {
	if n, ok := s.keys.shardOf(key); ok {
		return fmt.Sprintf("it keeps shard %d without a claim", n)
	}
	if key == s.keys.scout() {
		return "it keeps replicas from looking for unknown cars"
	}
	return "it keeps this server from being a member"
}

func (s *Store) strange(key string, err error) {
	switch {
	case s.table.ours(key):
		s.log.Warn("a key in etcd is not as servers write it; it is removed unless it is on the lease of a server: look for who writes there", "key", key, "reason", err, "effect", s.effect(key))
	case err != nil:
		s.log.Warn("a key in etcd is not as this server writes it; it is ignored, delete it", "key", shorten(key), "error", err)
	default:
		s.log.Warn("etcd has a key of somebody else below the prefix of this cluster; it is ignored, delete it", "key", shorten(key))
	}
}

// clear removes what is in the way, if it is still the same.
func (s *Store) clear(ctx context.Context) error {
	s.mu.Lock()
	all := s.obstacles
	s.mu.Unlock()
	for _, o := range all {
		if !o.removable {
			continue
		}
		err := s.write(ctx, clientv3.OpDelete(o.key), clientv3.Compare(clientv3.ModRevision(o.key), "=", o.mod))
		if err != nil && !errors.Is(err, errTaken) { // then another server was first
			return err
		}
	}
	return nil
}

// maxNamed bounds how many keys one sentence names.
const maxNamed = 3

// noticeLocked says what others have written in etcd that keeps shards from moving, and has what can
// be removed removed; the caller holds mu.
func (s *Store) noticeLocked() {
	var parts []string
	if s.trouble != "" {
		parts = append(parts, s.trouble)
	}
	for i, o := range s.obstacles {
		if o.removable {
			s.wake()
		}
		switch {
		case i < maxNamed:
			parts = append(parts, fmt.Sprintf("the key %s in etcd is not as servers write it (%v) and %s: delete it", o.key, o.why, s.effect(o.key)))
		case i == maxNamed:
			parts = append(parts, fmt.Sprintf("and %d more such keys", len(s.obstacles)-maxNamed))
		}
	}
	notice := strings.Join(parts, "; ")
	s.updateLocked(func(st *cluster.Status) { st.Notice = notice })
}
