package module

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
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
	for {
		if room := w.inbox.roomy(); room != nil { // what the car does not take stays in the module
			select {
			case <-room:
			case <-w.pollCtx.Done():
			}
		}
		if w.pollCtx.Err() != nil {
			return
		}
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
// whatever a module's process has let through. The result is closed when more are
// wanted, nil if they are.
func (w *Worker) fetchedCommands(commands []fleet.Command) (wanted <-chan struct{}) {
	commands, unusable := UsableCommands(commands)
	w.dropped(unusable)
	if len(commands) == 0 {
		return w.inbox.roomy()
	}
	now := time.Now()
	for i := range commands {
		commands[i].Fetched = now
	}
	w.fetched.Add(uint64(len(commands)))
	wanted = w.inbox.put(commands)
	w.opts.Notify()
	return wanted
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

// TakeCommands returns and removes the oldest fetched commands: at most count, and
// none behind that with which their bytes (CommandSize) reach the given number. left
// tells that more wait. As long as too many wait, the module is asked for none
// (REC-22).
func (w *Worker) TakeCommands(count, bytes int) (commands []fleet.Command, left bool) {
	return w.inbox.take(count, bytes)
}

// TakeStale returns and removes all fetched commands, for which there is no car. The
// module is asked for more after a pause of 1 ms, longer after each call up to 50 ms,
// until a device of it connects: one that always has a command would keep a core busy.
func (w *Worker) TakeStale() []fleet.Command { return w.inbox.takeStale() }

// CommandSize is what counts of a command when memory is bounded, in bytes.
func CommandSize(c *fleet.Command) int {
	return len(c.Data) + len(c.Device.Role) + len(c.Device.Name)
}

// DiscardCommands forgets fetched commands that the car has not taken (DEV-3) and returns
// how many they were.
func (w *Worker) DiscardCommands() int { return w.discard(w.inbox.takeAll()) }

func (w *Worker) discard(commands []fleet.Command) int {
	w.discarded.Add(uint64(len(commands)))
	return len(commands)
}
