package etcd

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"external-server/internal/cluster"
)

// Errors of writes.
var (
	errTaken = errors.New("the claim is another one by now")
	errLease = errors.New("this replica has no lease at the moment")
)

// write makes a transaction and takes in what it has done.
func (s *Store) write(ctx context.Context, op clientv3.Op, conditions ...clientv3.Cmp) error {
	client, _, err := s.access()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key := string(op.KeyBytes())
	answer, err := client.Txn(ctx).If(conditions...).Then(op, clientv3.OpGet(key)).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return describe(err)
	}
	// Either way the last answer says what etcd has now.
	got := answer.Responses[len(answer.Responses)-1].GetResponseRange()
	s.mu.Lock()
	s.take(key, got, answer.Header.Revision)
	s.refreshLocked()
	s.mu.Unlock()
	if !answer.Succeeded {
		return errTaken
	}
	return nil
}

// take takes in what a read of one key has returned; the caller holds mu.
func (s *Store) take(key string, got *pb.RangeResponse, revision int64) {
	if len(got.Kvs) == 0 {
		s.table.set(key, item{mod: revision})
		return
	}
	s.table.set(key, itemOf(got.Kvs[0]))
}

func (s *Store) leased() (clientv3.OpOption, error) {
	_, lease, err := s.access()
	if err != nil {
		return nil, err
	}
	if lease == 0 {
		return nil, errLease
	}
	return clientv3.WithLease(lease), nil
}

// put returns the writing of a claim of this replica.
func (s *Store) put(n int, v claimValue) (clientv3.Op, error) {
	lease, err := s.leased()
	if err != nil {
		return clientv3.Op{}, err
	}
	v.Owner = s.opts.Self.Name
	return clientv3.OpPut(s.keys.shard(n), encode(v), lease), nil
}

func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }

func same(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", revision)
}

// Claim implements cluster.Store.
func (s *Store) Claim(ctx context.Context, shard int, base int64) error {
	op, err := s.put(shard, claimValue{State: cluster.ClaimOpening, Base: base})
	if err != nil {
		return err
	}
	s.mu.Lock()
	terms := s.terms
	s.mu.Unlock()
	// Replicas that disagree on the number of shards never both claim.
	err = s.write(ctx, op, absent(s.keys.shard(shard)), clientv3.Compare(clientv3.Value(s.keys.settings()), "=", terms))
	if err == nil {
		s.mu.Lock()
		s.takesPart = true
		s.mu.Unlock()
	}
	return err
}

// Release implements cluster.Store.
func (s *Store) Release(ctx context.Context, shard int, revision int64) error {
	key := s.keys.shard(shard)
	err := s.write(ctx, clientv3.OpDelete(key), same(key, revision))
	if errors.Is(err, errTaken) {
		return nil // it is not ours any more, as wanted
	}
	return err
}

// Mark implements cluster.Store.
func (s *Store) Mark(ctx context.Context, shard int, revision int64, state, to string) error {
	base, err := s.base(shard, revision)
	if err != nil {
		return err
	}
	op, err := s.put(shard, claimValue{State: state, To: to, Base: base})
	if err != nil {
		return err
	}
	return s.write(ctx, op, same(s.keys.shard(shard), revision))
}

// Raise implements cluster.Store.
func (s *Store) Raise(ctx context.Context, shard int, revision, base int64) error {
	if base < 0 || base > maxBase {
		return fmt.Errorf("the epoch %d is not one of this program", base)
	}
	op, err := s.put(shard, claimValue{State: cluster.ClaimOpening, Base: base})
	if err != nil {
		return err
	}
	return s.write(ctx, op, same(s.keys.shard(shard), revision))
}

// base returns the base of the claim with a revision. Only this replica changes it.
func (s *Store) base(shard int, revision int64) (int64, error) {
	st := s.Status()
	if st.Registry == nil || shard >= len(st.Registry.Claims) {
		return 0, errNoClient
	}
	if c := st.Registry.Claims[shard]; c.Revision == revision {
		return c.Base, nil
	}
	return 0, errTaken
}

// Scout implements cluster.Store.
func (s *Store) Scout(ctx context.Context, claim bool) error {
	key := s.keys.scout()
	if !claim {
		return s.write(ctx, clientv3.OpDelete(key), clientv3.Compare(clientv3.Value(key), "=", s.opts.Self.Name))
	}
	lease, err := s.leased()
	if err != nil {
		return err
	}
	return s.write(ctx, clientv3.OpPut(key, s.opts.Self.Name, lease), absent(key))
}
