package fleetapi

import (
	"context"
	"sync"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// feed polls for commands as repeated calls of WaitCommands do. While a poll
// waits in the API of this process it has no goroutine; there is one while
// anything is to be done or waited for otherwise. Polls of an API elsewhere are
// those of a share, once the flush is done.
type feed struct {
	i       *Instance
	deliver func([]fleet.Command) (wanted <-chan struct{})
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup // the goroutine or the parked poll

	mu    sync.Mutex
	stop  func() bool // of the parked poll
	share *share
}

// StartCommands fills module.CommandSource. WaitCommands must not be called besides.
func (i *Instance) StartCommands(deliver func([]fleet.Command) (wanted <-chan struct{})) (stop func()) {
	f := &feed{i: i, deliver: deliver}
	i.feed.Store(f)
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.running.Go(f.run)
	return f.stopAndWait
}

// stopAndWait ends the polls and returns when nothing of the feed is left.
func (f *feed) stopAndWait() {
	f.cancel()
	f.mu.Lock()
	stop, share := f.stop, f.share
	f.mu.Unlock()
	if stop != nil && stop() {
		f.running.Done() // the parked poll will not come back
	}
	if share != nil {
		f.i.pool.leave(share, f)
	}
	f.running.Wait()
}

// join makes the polls those of a share, if there can be one.
func (f *feed) join() bool {
	if f.i.local != nil || !f.i.poll.primed {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() == nil { // otherwise end has looked for a share already
		f.share = f.i.pool.join(f)
	}
	return f.share != nil
}

// run polls until the next poll can be parked or is that of a share.
func (f *feed) run() {
	for f.ctx.Err() == nil && !f.park() && !f.join() {
		if commands, err := f.i.WaitCommands(f.ctx); err == nil && len(commands) > 0 {
			f.hand(commands)
		}
	}
}

// hand delivers commands and waits until more are wanted.
func (f *feed) hand(commands []fleet.Command) {
	if wanted := f.deliver(commands); wanted != nil {
		select {
		case <-wanted:
		case <-f.ctx.Done():
		}
	}
}

// park starts a poll without goroutine if that is possible now.
func (f *feed) park() bool {
	i := f.i
	if i.local == nil || !i.poll.primed || time.Until(i.poll.next) > 0 || i.host.polling.mustWait() {
		return false
	}
	f.mu.Lock() // returned may come before there is a stop
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return false // end has looked for a poll already
	}
	f.running.Add(1)
	f.stop = i.local.PollCommands(i.car, i.poll.last+1, f.returned)
	return true
}

// returned ends a parked poll. One that brings nothing, as nearly all do, is
// followed by the next at once; everything else is done elsewhere, because the
// API waits for the return.
func (f *feed) returned(messages []httpapi.Message, err error) {
	defer f.running.Done()
	f.mu.Lock()
	f.stop = nil
	f.mu.Unlock()
	if f.ctx.Err() != nil {
		return
	}
	f.i.host.polling.report(false, false, unavailable(err))
	if len(messages) == 0 {
		f.i.polled(nil, err)
		if f.park() {
			return
		}
		f.running.Go(f.run)
		return
	}
	f.running.Go(func() {
		if commands := f.i.polled(messages, err); len(commands) > 0 {
			f.hand(commands)
		}
		f.run()
	})
}
