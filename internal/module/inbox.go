package module

import (
	"math"
	"slices"
	"sync"
	"time"

	"external-server/internal/fleet"
)

// inbox holds the fetched commands until the car takes them. It drops nothing: when
// it is full, no more are fetched. So it holds limit commands or maxBytes at most,
// and the batch with which that was reached. While what it holds is thrown away, it
// takes one batch at a time, with a pause behind each.
type inbox struct {
	limit    int
	maxBytes int
	mu       sync.Mutex
	commands []fleet.Command
	bytes    int           // of the commands, see CommandSize
	room     chan struct{} // closed when there is room again; nil: there is
	pause    time.Duration // behind the last batch that was thrown away; 0: commands are wanted
	timer    *time.Timer   // of the pause that lasts; nil: none does
}

func (b *inbox) full() bool {
	return len(b.commands) >= b.limit || b.bytes >= b.maxBytes || b.pause > 0 && (b.timer != nil || len(b.commands) > 0)
}

// admit lets the module be asked again if there is room; mu is held.
func (b *inbox) admit() {
	if b.room != nil && !b.full() {
		close(b.room)
		b.room = nil
	}
}

// takeStale removes all commands, which no device can get, and lets a pause begin that
// becomes longer from batch to batch, as after an idle wait.
func (b *inbox) takeStale() []fleet.Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.commands
	b.commands, b.bytes = nil, 0
	if len(out) == 0 {
		return nil
	}
	b.pause = min(max(idleMin, 2*b.pause), idleMax)
	if b.timer != nil {
		b.timer.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(b.pause, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.timer == timer {
			b.timer = nil
			b.admit()
		}
	})
	b.timer = timer
	return out
}

// want ends the pauses: commands are wanted again.
func (b *inbox) want() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
	b.pause, b.timer = 0, nil
	b.admit()
}

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
	b.admit()
	return out, len(b.commands) > 0
}

func (b *inbox) takeAll() []fleet.Command {
	out, _ := b.take(math.MaxInt, math.MaxInt)
	return out
}
