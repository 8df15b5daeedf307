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

// pollCommands asks for commands until ctx ends (CMD-1). Its goroutine is the only
// one that does, and with it the only caller of pop_command (MOD-6).
func (w *Worker) pollCommands(ctx context.Context, fetch func(context.Context) ([]fleet.Command, error)) {
	backoff, idle := w.opts.BackoffMin, idleMin
	for {
		if room := w.inbox.roomy(); room != nil { // what the car does not take stays in the module
			select {
			case <-room:
			case <-w.lastPoll:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil || w.endsPolling() {
			return
		}
		start := time.Now()
		commands, err := w.fetchCommands(ctx, fetch)
		w.fetchedCommands(commands)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.pollFailed(err)
			w.pause(ctx, backoff/2+rand.N(backoff/2+1))
			backoff = min(2*backoff, w.opts.BackoffMax) // DEF-24
			continue
		case len(commands) == 0 && time.Since(start) < quickWait:
			w.pause(ctx, idle)
			idle = min(2*idle, idleMax)
		default:
			idle = idleMin
		}
		backoff = w.opts.BackoffMin
	}
}

// fetchCommands asks once. It takes from the error what was dropped.
func (w *Worker) fetchCommands(ctx context.Context, fetch func(context.Context) ([]fleet.Command, error)) (commands []fleet.Command, err error) {
	err = guard("wait_for_command", func() (err error) {
		commands, err = fetch(ctx)
		return err
	})
	if unusable, ok := errors.AsType[*UnusableError](err); ok {
		w.dropped(unusable)
		err = unusable.Err
	}
	return commands, err
}

func (w *Worker) pollFailed(err error) {
	w.failed(slog.LevelError, "module failed to wait for commands, trying again", fleet.Device{Module: w.number}, err)
}

// startPolling begins to fetch commands until endPolling is called; poll is closed
// afterwards.
func (w *Worker) startPolling() {
	w.pollMu.Lock()
	defer w.pollMu.Unlock()
	if w.pollEnded || w.endsPolling() {
		close(w.poll)
		return
	}
	if source, ok := w.instance.(CommandSource); ok {
		w.stopSource = source.StartCommands(w.fetchedCommands)
		return
	}
	if holder, ok := w.instance.(Holder); ok && holder.Holds() {
		w.held.holder = holder
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stopPoll = cancel
	go func() {
		defer close(w.poll)
		w.pollCommands(ctx, w.instance.WaitCommands)
	}()
}

// EndPolling lets the module be asked for no more commands. The result is closed when the
// last request has come back and what it brought can be taken: a module may need as long
// for it as its timeout is. Close does not wait for that, and what comes then is
// discarded.
func (w *Worker) EndPolling() (ended <-chan struct{}) {
	w.pollMu.Lock()
	defer w.pollMu.Unlock()
	if !w.endsPolling() {
		close(w.lastPoll)
	}
	last := w.poll
	switch {
	case w.stopSource != nil && !w.pollEnded:
		w.pollEnded = true
		w.stopTheSource()
	case w.held.holder != nil:
		w.held.holder.EndPolls()
		last = w.held.gone
	}
	if last == nil || !w.started.Load() {
		last = make(chan struct{})
		close(last)
	}
	return last
}

func (w *Worker) endsPolling() bool {
	select {
	case <-w.lastPoll:
		return true
	default:
		return false
	}
}

// stopTheSource ends the polling of a CommandSource; poll is closed afterwards.
func (w *Worker) stopTheSource() {
	go func() {
		w.stopSource()
		close(w.poll)
	}()
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
		w.stopTheSource()
	case w.stopPoll != nil:
		w.stopPoll()
	case w.held.holder != nil:
		w.held.end(func() { close(w.poll) })
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

func (w *Worker) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.lastPoll:
	case <-ctx.Done():
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
// how many they were. What the module itself still holds is stale as well: it is
// discarded before the next device_connected, and Stale is told of it.
func (w *Worker) DiscardCommands() int {
	w.stale.Store(true)
	return w.discard(w.inbox.takeAll())
}

func (w *Worker) discard(commands []fleet.Command) int {
	w.discarded.Add(uint64(len(commands)))
	return len(commands)
}
