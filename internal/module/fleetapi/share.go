package fleetapi

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// shareKey tells which instances may share polls: those that would make the same
// requests at the same times.
type shareKey struct {
	car   fleet.CarID
	api   *httpapi.Client
	guard guardSettings
}

// share is the long poll of all instances of a car that use the same API with the
// same key: an answer brings the commands of all modules anyway (HTTP-11), and
// with thousands of cars every poll less is a connection less. Each member keeps
// its own newest timestamp and its own guard.
type share struct {
	key     shareKey
	host    *host
	members atomic.Pointer[[]*feed] // replaced with the lock of the pool
	giveUp  context.CancelFunc
	running sync.WaitGroup // the goroutine

	handing sync.Mutex // held while members get their part
}

// join makes the feed, whose flush is done, a member. Its poller belongs to the
// share from here until leave has returned.
func (p *Pool) join(f *feed) *share {
	client, ok := f.i.api.(*httpapi.Client)
	if !ok {
		return nil
	}
	key := shareKey{car: f.i.car, api: client, guard: f.i.poll.guard.guardSettings}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shares[key]
	if s == nil {
		s = &share{key: key, host: f.i.host}
		p.shares[key] = s
		s.members.Store(&[]*feed{f})
		var ctx context.Context
		ctx, s.giveUp = context.WithCancel(context.Background())
		s.running.Go(func() { s.run(ctx) })
		return s
	}
	with := append(slices.Clone(*s.members.Load()), f)
	s.members.Store(&with)
	return s
}

// leave returns when the feed gets nothing any more.
func (p *Pool) leave(s *share, f *feed) {
	p.mu.Lock()
	without := slices.DeleteFunc(slices.Clone(*s.members.Load()), func(m *feed) bool { return m == f })
	s.members.Store(&without)
	if len(without) == 0 {
		delete(p.shares, s.key)
		s.giveUp()
	}
	p.mu.Unlock()
	if len(without) == 0 {
		s.running.Wait()
		return
	}
	s.settle()
}

// settle waits for the end of a hand that may still have seen a former member.
func (s *share) settle() {
	s.handing.Lock()
	defer s.handing.Unlock()
}

// run makes one poll after the other.
func (s *share) run(ctx context.Context) {
	for ctx.Err() == nil {
		since, next := s.due()
		if sleep(ctx, time.Until(next)) != nil {
			return
		}
		probe, err := s.host.polling.admit(ctx)
		if err != nil {
			return
		}
		messages, err := requestCommands(ctx, s.key.api, s.key.car, httpapi.Query{Since: since, Wait: !probe})
		s.host.polling.report(probe, ctx.Err() != nil, unavailable(err))
		if ctx.Err() != nil {
			return
		}
		for _, wanted := range s.hand(since, messages, err) {
			select {
			case <-wanted:
			case <-ctx.Done():
			}
		}
	}
}

// due returns what the next poll asks for and when: every member gets what it has
// not seen, and the guard of each is kept.
func (s *share) due() (since int64, next time.Time) {
	s.handing.Lock()
	defer s.handing.Unlock()
	for n, f := range *s.members.Load() {
		p := &f.i.poll
		if n == 0 || p.last+1 < since {
			since = p.last + 1
		}
		if p.next.After(next) {
			next = p.next
		}
	}
	return since, next
}

// hand gives every member its part of an answer. No more may be fetched
// before all results are closed.
func (s *share) hand(since int64, messages []httpapi.Message, err error) (wanted []<-chan struct{}) {
	s.handing.Lock()
	defer s.handing.Unlock()
	for _, f := range *s.members.Load() {
		last := f.i.poll.last
		if last+1 < since {
			continue // joined meanwhile and may miss what was before: the next poll is for it
		}
		own := messages
		if last >= since { // the poll went back for another member
			own = slices.DeleteFunc(slices.Clone(messages), func(m httpapi.Message) bool {
				return m.Timestamp >= since && m.Timestamp <= last
			})
		}
		if commands := f.i.polled(own, err); len(commands) > 0 {
			if w := f.deliver(commands); w != nil {
				wanted = append(wanted, w)
			}
		}
	}
	return wanted
}
