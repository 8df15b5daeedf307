package module

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"external-server/internal/fleet"
)

// A wait that brings nothing within quickWait was none: the poller pauses for
// idleMin, then longer up to idleMax, because some libraries ignore the timeout
// and would keep a core busy (MOD-15).
const (
	quickWait = time.Millisecond
	idleMin   = time.Millisecond
	idleMax   = 50 * time.Millisecond
)

// pollCommands is the goroutine that waits for commands (CMD-1). It is the only
// caller of WaitCommands, and with it of pop_command (MOD-6).
func (w *Worker) pollCommands() {
	defer close(w.poll)
	backoff, idle := w.opts.BackoffMin, idleMin
	for w.pollCtx.Err() == nil {
		start := time.Now()
		var commands []fleet.Command
		err := guard("wait_for_command", func() (err error) {
			commands, err = w.instance.WaitCommands(w.pollCtx)
			return err
		})
		if unusable, ok := errors.AsType[*UnusableError](err); ok {
			w.dropped(unusable)
			err = unusable.Err
		}
		w.fetchedCommands(commands)
		switch {
		case w.pollCtx.Err() != nil:
			return
		case err != nil:
			w.failed(slog.LevelError, "module failed to wait for commands, trying again", fleet.Device{Module: w.number}, err)
			w.pause(backoff/2 + rand.N(backoff/2+1))
			backoff = min(2*backoff, w.opts.BackoffMax) // DEF-24
			continue
		case len(commands) == 0 && time.Since(start) < quickWait:
			w.pause(idle)
			idle = min(2*idle, idleMax)
		default:
			idle = idleMin
		}
		backoff = w.opts.BackoffMin
	}
}

// startPolling begins to fetch commands until endPolling is called; poll is closed
// afterwards.
func (w *Worker) startPolling() {
	w.pollMu.Lock()
	defer w.pollMu.Unlock()
	if w.pollEnded {
		close(w.poll)
		return
	}
	if source, ok := w.instance.(CommandSource); ok {
		w.stopSource = source.StartCommands(w.fetchedCommands)
		return
	}
	w.pollCtx, w.stopPoll = context.WithCancel(context.Background())
	go w.pollCommands()
}

// endPolling ends the polling without waiting for its end.
func (w *Worker) endPolling() {
	w.pollMu.Lock()
	defer w.pollMu.Unlock()
	if w.pollEnded {
		return
	}
	w.pollEnded = true
	switch {
	case w.stopSource != nil:
		go func() {
			w.stopSource()
			close(w.poll)
		}()
	case w.stopPoll != nil:
		w.stopPoll()
	}
}

// fetchedCommands takes what the instance brought. It is the one place that all
// commands of all kinds of modules pass, so what no car can be sent ends here,
// whatever a module's process has let through.
func (w *Worker) fetchedCommands(commands []fleet.Command) {
	commands, unusable := UsableCommands(commands)
	w.dropped(unusable)
	if len(commands) == 0 {
		return
	}
	now := time.Now()
	for i := range commands {
		commands[i].Fetched = now
	}
	w.fetched.Add(uint64(len(commands)))
	w.queueCommands(commands)
	w.opts.Notify()
}

// dropped counts and reports commands that can be sent to no car. To keep them
// would end the car's session with every attempt.
func (w *Worker) dropped(unusable *UnusableError) {
	if unusable == nil {
		return
	}
	w.fetched.Add(uint64(unusable.Commands))
	w.discarded.Add(uint64(unusable.Commands))
	w.limit.Log(w.log, slog.LevelError, "a command of the module can be sent to no car and is dropped",
		slog.String("reason", unusable.Reason), slog.Int("commands", unusable.Commands))
}

func (w *Worker) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.pollCtx.Done():
	}
}

func (w *Worker) queueCommands(commands []fleet.Command) {
	if over := w.inbox.put(commands); over > 0 { // REC-22: the oldest give way
		w.discarded.Add(uint64(over))
		w.limit.Log(w.log, slog.LevelWarn, "too many commands wait, the oldest are dropped",
			slog.Int("commands", over), slog.Int("limit", w.opts.CommandQueue), slog.Int("limit_bytes", w.opts.CommandBytes))
	}
}

// TakeCommands returns and removes the fetched commands, oldest first.
func (w *Worker) TakeCommands() []fleet.Command { return w.inbox.take() }

// DiscardCommands forgets fetched commands that nobody took (DEV-3) and returns
// how many they were.
func (w *Worker) DiscardCommands() int { return w.discard(w.inbox.take()) }

func (w *Worker) discard(commands []fleet.Command) int {
	w.discarded.Add(uint64(len(commands)))
	return len(commands)
}

// inbox holds the fetched commands until the car takes them.
type inbox struct {
	limit    int
	maxBytes int
	mu       sync.Mutex
	commands []fleet.Command
	bytes    int // of their data
}

// put adds commands and returns how many of the oldest had to go. The newest one
// stays, however large it is.
func (b *inbox) put(commands []fleet.Command) (over int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.commands = append(b.commands, commands...)
	for i := range commands {
		b.bytes += len(commands[i].Data)
	}
	for n := len(b.commands); n-over > b.limit || b.bytes > b.maxBytes && n-over > 1; over++ {
		b.bytes -= len(b.commands[over].Data)
	}
	if over > 0 {
		b.commands = slices.Clone(b.commands[over:])
	}
	return over
}

func (b *inbox) take() []fleet.Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.commands
	b.commands, b.bytes = nil, 0
	return out
}
