package etcd

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"external-server/internal/cluster"
)

// heartbeat is the outcome of one sign of life.
type heartbeat struct {
	deadline time.Time // of the lease, counted from when it was sent
	revision int64
	err      error
}

// beat gives one sign of life. The client's own KeepAliveOnce tries again and again
// without a pause while etcd is away.
func (s *Store) beat(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) heartbeat {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Lease/3)
	defer cancel()
	stream, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
	if err != nil {
		return heartbeat{err: describe(err)}
	}
	sent := time.Now()
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease)}); err != nil {
		return heartbeat{err: describe(err)}
	}
	answer, err := stream.Recv()
	if err != nil {
		return heartbeat{err: describe(err)}
	}
	if answer.TTL <= 0 {
		return heartbeat{err: errNoLease}
	}
	_ = stream.CloseSend() // the answer is there
	return heartbeat{deadline: sent.Add(time.Duration(answer.TTL) * time.Second), revision: answer.Header.GetRevision()}
}

func (s *Store) beats(b heartbeat, lease clientv3.LeaseID) {
	s.update(func(st *cluster.Status) { st.Deadline, st.Lease = b.deadline, int64(lease) })
}

// beaten takes in that a sign of life had no answer.
func (s *Store) beaten(b heartbeat) error {
	if errors.Is(b.err, errNoLease) {
		s.mu.Lock()
		s.lease = 0
		s.mu.Unlock()
		s.log.Warn("the lease of this server has ended; it claims anew what it serves")
	}
	return b.err
}

// heart gives signs of life until the context ends or one fails.
func (s *Store) heart(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID, now <-chan struct{}, beats chan<- heartbeat) {
	ticker := time.NewTicker(s.opts.Lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-now:
		}
		b := s.beat(ctx, client, lease)
		select {
		case <-ctx.Done():
			return
		case beats <- b:
		}
		if b.err != nil {
			return
		}
	}
}
