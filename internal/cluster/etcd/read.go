package etcd

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// read reads everything at one revision.
func (s *Store) read(ctx context.Context, client *clientv3.Client) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s.mu.Lock()
	floor := s.table.latest
	s.mu.Unlock()
	prefix := func(key string, limit int64) clientv3.Op {
		return clientv3.OpGet(key, clientv3.WithPrefix(), clientv3.WithLimit(limit))
	}
	answer, err := client.Txn(ctx).Then(
		clientv3.OpGet(s.keys.settings()), clientv3.OpGet(s.keys.scout()), clientv3.OpGet(s.keys.member(s.opts.Self.Name)),
		prefix(s.keys.shards(), 2*maxShards), prefix(s.keys.members(), memberPage)).Commit()
	if err != nil {
		return 0, describe(err)
	}
	revision = answer.Header.Revision
	all := make(map[string]item)
	for _, r := range answer.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			all[string(kv.Key)] = itemOf(kv)
		}
	}
	if err := s.moreMembers(ctx, client, answer.Responses[len(answer.Responses)-1].GetResponseRange(), revision, all); err != nil {
		return 0, describe(err)
	}
	terms, founded := all[s.keys.settings()]
	if founded {
		if err := s.compare(ctx, client, terms); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	restored := s.table.replace(all, revision, floor)
	s.refreshLocked()
	s.mu.Unlock()
	if restored {
		s.log.Warn("etcd counts from a lower revision than before: it was restored", "revision", revision, "before", floor)
	}
	if !founded {
		return revision, s.found(ctx, client)
	}
	return revision, nil
}

// moreMembers reads what follows the first page of members, where others have written so much, at the same
// revision. Only what is on a lease can be a server's.
func (s *Store) moreMembers(ctx context.Context, client *clientv3.Client, page *pb.RangeResponse, revision int64, all map[string]item) error {
	end := clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.keys.members()))
	for n := 1; n < maxMemberPages && page.More && len(page.Kvs) > 0; n++ {
		next := string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		answer, err := client.Get(ctx, next, end, clientv3.WithLimit(memberPage), clientv3.WithRev(revision))
		if err != nil {
			return err
		}
		page = (*pb.RangeResponse)(answer)
		for _, kv := range page.Kvs {
			if kv.Lease != 0 {
				all[string(kv.Key)] = itemOf(kv)
			}
		}
	}
	return nil
}
