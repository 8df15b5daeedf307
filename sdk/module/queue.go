package module

import (
	"context"
	"sync"
)

// Queue holds the commands of one context until the server fetches them. The
// zero value is ready; all methods may be called concurrently.
type Queue struct {
	mu       sync.Mutex
	commands []Command
	wake     chan struct{}
}

// Push adds a command. The queue owns its data from now on.
func (q *Queue) Push(c Command) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.commands = append(q.commands, c)
	if q.wake != nil {
		close(q.wake)
		q.wake = nil
	}
}

// Commands is what a Context's method of that name needs.
func (q *Queue) Commands(ctx context.Context) ([]Command, error) {
	for {
		q.mu.Lock()
		if len(q.commands) > 0 {
			out := q.commands
			q.commands = nil
			q.mu.Unlock()
			return out, nil
		}
		if q.wake == nil {
			q.wake = make(chan struct{})
		}
		wake := q.wake
		q.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, nil
		}
	}
}
