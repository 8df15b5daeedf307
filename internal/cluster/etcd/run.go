package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"external-server/internal/cluster"
)

var (
	// errAgain: everything is to be read anew, for no bad reason.
	errAgain = errors.New("read anew")
	// errNoLease: etcd does not know the lease any more.
	errNoLease = errors.New("the lease has ended")
)

const (
	readAgain = 10 * time.Second // everything is read so often, whatever the watch says
	redial    = 5                // a new client after so many failures: certificates may have changed
	nameWait  = 250 * time.Millisecond
	// shortPause bounds how often everything is read when it is worth nothing at once.
	shortPause = 10 * time.Millisecond
)

// Run implements cluster.Store.
func (s *Store) Run(ctx context.Context) error {
	failures := 0
	wait := leastBackoff
	var told, since time.Time // of a name that is taken
	for {
		err := s.session(ctx)
		var fatal *SettingsError
		var taken *NameError
		switch {
		case ctx.Err() != nil:
			s.leave()
			return nil
		case errors.Is(err, errAgain), errors.Is(err, errNoLease):
			failures, wait = 0, leastBackoff
			s.pause(ctx, shortPause)
			continue
		case errors.As(err, &fatal):
			s.leave()
			return err
		case errors.As(err, &taken):
			if since.IsZero() {
				since = time.Now()
			}
			// A process that was killed has its name until its lease ends.
			if now := time.Now(); now.Sub(since) > s.opts.Lease+time.Second && now.Sub(told) > time.Minute {
				told = now
				s.log.Error("this server is no member of the cluster", "reason", err)
			}
			s.update(func(st *cluster.Status) { st.Up, st.Problem = false, err.Error() })
			s.pause(ctx, nameWait)
			continue
		}
		since = time.Time{}
		found := false
		if !s.Status().Up { // else what is known at once is told at once
			err, found = s.opts.explain(ctx, err)
		}
		s.down(err)
		if failures++; found || failures%redial == 0 {
			s.hangUp()
		}
		s.pause(ctx, wait/2+rand.N(wait))
		wait = min(2*wait, mostBackoff)
	}
}

func (s *Store) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// down notes that etcd does not answer.
func (s *Store) down(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mute := (*silence)(nil) // of such errors only the first one is news
	now := s.Status()
	if news := now.Problem != err.Error(); now.Up || news && (now.Registry == nil || !errors.As(err, &mute)) {
		s.log.Warn("etcd is away; this server goes on serving what it serves", "reason", err)
	}
	s.updateLocked(func(st *cluster.Status) { st.Up, st.Problem = false, err.Error() })
}

func (s *Store) up() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.Status().Up {
		s.log.Info("member of the cluster", "cluster", s.opts.Cluster, "replica", s.opts.Self.Name)
	}
	s.updateLocked(func(st *cluster.Status) { st.Up, st.Problem = true, "" })
}

// hangUp closes the client; the next session makes another.
func (s *Store) hangUp() {
	s.mu.Lock()
	client := s.client
	s.client = nil
	s.mu.Unlock()
	if client != nil {
		_ = client.Close() // nothing is lost with it
	}
}

// leave gives the lease back, so that others take over at once.
func (s *Store) leave() {
	client, lease, err := s.access()
	if err == nil && lease != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		if _, err := client.Revoke(ctx, lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			s.log.Warn("the lease could not be given back; it ends by itself", "reason", describe(err))
		}
	}
	s.hangUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease = 0
	s.updateLocked(func(st *cluster.Status) { st.Up, st.Problem = false, "this server has left the cluster" })
}

// session makes this server a member and follows what happens until something has to
// begin anew.
func (s *Store) session(ctx context.Context) error {
	client, lease, err := s.access()
	if err != nil {
		if client, err = dial(s.opts); err != nil {
			return describe(err)
		}
		s.mu.Lock()
		s.client = client
		s.mu.Unlock()
	}
	if lease != 0 {
		if b := s.beat(ctx, client, lease); b.err != nil {
			return s.beaten(b)
		} else {
			s.beats(b, lease)
		}
	}
	revision, err := s.read(ctx, client)
	if err != nil {
		return err
	}
	if err := s.clear(ctx); err != nil {
		return err
	}
	if err := s.join(ctx, client); err != nil {
		return err
	}
	s.up()
	return s.follow(ctx, client, revision)
}

// join makes this server a member on a living lease, if it is not.
func (s *Store) join(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key := s.keys.member(s.opts.Self.Name)
	s.mu.Lock()
	it, lease, self := s.table.items[key], s.lease, s.self
	s.mu.Unlock()
	condition := absent(key)
	if it.value != nil {
		m, err := decodeMember(self.Name, it.value)
		switch {
		case err != nil:
			return &NameError{Name: self.Name, Key: key}
		case s.another(m):
			return &NameError{Name: self.Name, Other: m, Key: key}
		}
		// This process, or the one before with the same state directory: that has ended,
		// and what it had claimed is this one's if the lease still lives.
		condition = clientv3.Compare(clientv3.ModRevision(key), "=", it.mod)
		if held := clientv3.LeaseID(it.lease); held != 0 && held != lease {
			b := s.beat(ctx, client, held)
			if errors.Is(b.err, errNoLease) {
				return errAgain // the key vanishes in a moment
			}
			if b.err != nil {
				return b.err
			}
			lease = held
			s.beats(b, lease)
		}
	}
	if lease == 0 {
		sent := time.Now()
		granted, err := client.Grant(ctx, int64(s.opts.Lease/time.Second))
		if err != nil {
			return describe(err)
		}
		lease = granted.ID
		s.beats(heartbeat{deadline: sent.Add(time.Duration(granted.TTL) * time.Second)}, lease)
	}
	s.mu.Lock()
	s.lease = lease
	s.mu.Unlock()
	value := encode(self)
	if string(it.value) != value || clientv3.LeaseID(it.lease) != lease {
		err := s.write(ctx, clientv3.OpPut(key, value, clientv3.WithLease(lease)), condition)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return s.beaten(heartbeat{err: errNoLease})
		}
		if errors.Is(err, errTaken) {
			return errAgain
		}
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.told = value
	s.mu.Unlock()
	return nil
}

// publish tells etcd what has changed of this server.
func (s *Store) publish(ctx context.Context) error {
	key := s.keys.member(s.opts.Self.Name)
	s.mu.Lock()
	value, lease, it := encode(s.self), s.lease, s.table.items[key]
	told := s.told
	s.mu.Unlock()
	if value == told {
		return nil
	}
	err := s.write(ctx, clientv3.OpPut(key, value, clientv3.WithLease(lease)), same(key, it.create))
	if errors.Is(err, errTaken) {
		return errAgain
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.told = value
	s.mu.Unlock()
	return nil
}

// follow takes in what changes, and gives signs of life.
func (s *Store) follow(ctx context.Context, client *clientv3.Client, revision int64) error {
	_, lease, err := s.access()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	beats := make(chan heartbeat)
	now := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.heart(ctx, client, lease, now, beats)
	}()
	defer func() { cancel(); <-done }()
	changes, err := s.watch(ctx, client, revision+1)
	if err != nil {
		return err
	}
	again := time.NewTimer(s.patience())
	defer again.Stop()
	own := s.keys.member(s.opts.Self.Name)
	s.wake() // what was to be published meanwhile
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case answer, ok := <-changes:
			if !ok {
				return errAgain
			}
			if err := answer.Err(); err != nil {
				if errors.Is(err, rpctypes.ErrCompacted) {
					return errAgain
				}
				return describe(err)
			}
			gone, again := s.changed(answer, own)
			if again {
				return errAgain
			}
			if gone {
				select {
				case now <- struct{}{}: // is the lease still there?
				default:
				}
			}
		case b := <-beats:
			if b.err != nil {
				return s.beaten(b)
			}
			s.beats(b, lease)
			s.mu.Lock()
			backwards := b.revision < s.table.latest // restored, or a member of etcd that is a little behind
			removed := s.table.items[own].value == nil
			s.mu.Unlock()
			if backwards || removed {
				return errAgain
			}
		case <-s.kick:
			if err := s.publish(ctx); err != nil {
				return err
			}
			if err := s.clear(ctx); err != nil {
				return err
			}
		case <-again.C:
			return errAgain
		}
	}
}

// watch begins a watch. The client's own Watch waits for etcd without end.
func (s *Store) watch(ctx context.Context, client *clientv3.Client, revision int64) (clientv3.WatchChan, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	late := time.AfterFunc(callTimeout, cancel)
	changes := client.Watch(ctx, s.keys.prefix, clientv3.WithPrefix(), clientv3.WithRev(revision))
	if !late.Stop() {
		return nil, describe(context.DeadlineExceeded)
	}
	return changes, nil
}

// changed takes in what the watch tells, and returns whether this server's own key is
// gone, and whether the settings are not those that this server knows.
func (s *Store) changed(answer clientv3.WatchResponse, own string) (gone, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range answer.Events {
		it := item{mod: e.Kv.ModRevision}
		if e.Type == clientv3.EventTypePut {
			it = itemOf(e.Kv)
		}
		s.table.event(string(e.Kv.Key), it)
		again = again || string(e.Kv.Key) == s.keys.settings() && string(it.value) != s.terms && s.trouble == ""
		gone = gone || string(e.Kv.Key) == own && it.value == nil
	}
	s.refreshLocked()
	return gone, again
}
