package module

import (
	"math"
	"slices"
	"sync"

	"external-server/internal/fleet"
)

// inbox holds the fetched commands until the car takes them. It drops nothing: when
// it is full, no more are fetched. So it holds limit commands or maxBytes at most,
// and the batch with which that was reached.
type inbox struct {
	limit    int
	maxBytes int
	mu       sync.Mutex
	commands []fleet.Command
	bytes    int           // of the commands, see CommandSize
	room     chan struct{} // closed when there is room again; nil: there is
}

func (b *inbox) full() bool { return len(b.commands) >= b.limit || b.bytes >= b.maxBytes }

// put adds commands and returns what is closed when there is room for more, nil if
// there is.
func (b *inbox) put(commands []fleet.Command) (room <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.commands = append(b.commands, commands...)
	for i := range commands {
		b.bytes += CommandSize(&commands[i])
	}
	return b.wait()
}

// roomy returns what is closed when there is room, nil if there is.
func (b *inbox) roomy() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wait()
}

// wait is roomy with mu held.
func (b *inbox) wait() <-chan struct{} {
	if !b.full() {
		return nil
	}
	if b.room == nil {
		b.room = make(chan struct{})
	}
	return b.room
}

// take removes the oldest commands, see Worker.TakeCommands.
func (b *inbox) take(count, bytes int) (out []fleet.Command, left bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, taken := 0, 0
	for n < len(b.commands) && n < count && taken < bytes {
		taken += CommandSize(&b.commands[n])
		n++
	}
	if n == len(b.commands) {
		out, b.commands = b.commands, nil
	} else {
		out = slices.Clone(b.commands[:n])
		clear(b.commands[:n]) // the rest must not keep them alive
		b.commands = b.commands[n:]
	}
	b.bytes -= taken
	if b.room != nil && !b.full() {
		close(b.room)
		b.room = nil
	}
	return out, len(b.commands) > 0
}

func (b *inbox) takeAll() []fleet.Command {
	out, _ := b.take(math.MaxInt, math.MaxInt)
	return out
}
