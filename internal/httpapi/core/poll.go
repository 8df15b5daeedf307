package core

import (
	"sync/atomic"

	"external-server/internal/httpapi"
)

// poll is one call of PollCommands: it makes sure that done is called once, or
// never after a successful stop.
type poll struct {
	core   *Core
	waiter waiter
	done   func([]httpapi.Message, error)
	over   atomic.Bool // finished or stopped
}

func (p *poll) finish(messages []httpapi.Message, err error) {
	if p.over.CompareAndSwap(false, true) {
		p.done(messages, err)
	}
}

// stop gives the poll up and reports whether it was in time.
func (p *poll) stop() bool {
	if !p.over.CompareAndSwap(false, true) {
		return false
	}
	p.core.unpark(&p.waiter)
	return true
}

// later runs look in a goroutine that the core waits for.
func (p *poll) later(look func() ([]httpapi.Message, bool, error)) func() bool {
	c := p.core
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		// The core's goroutines are being waited for; this one ends by itself.
		go p.finish(nil, ErrStopping)
		return p.stop
	}
	c.running.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.running.Done()
		messages, parked, err := look()
		if !parked {
			p.finish(messages, err)
			return
		}
		if p.over.Load() { // stopped between the look and the parking
			c.unpark(&p.waiter)
		}
	}()
	return p.stop
}
