package module

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"external-server/internal/fleet"
)

const (
	// lingerPolls is how long commands are still fetched after the last device has left.
	// A gateway that connects anew, as all do after a restart of the broker, mostly comes
	// within it, and finds a poll under way.
	lingerPolls = 10 * time.Second
	// drainLimit is how long device_connected waits for a module to hand out what it holds.
	// It is shorter than a connect sequence waits for the module's answer (REC-8). Known
	// libraries ignore the timeout of wait_for_command (MOD-15); one that waits as long as
	// that holds nothing.
	drainLimit = time.Second
	// drainRounds bounds the batches that are discarded: some modules make a command with
	// every wait.
	drainRounds = 16
)

// held is the polling of a Holder. There is a poll while a device is connected, and
// lingerPolls longer. Its fields are guarded by Worker.pollMu, but for devices.
//
//	none ──beforeConnect──► draining ──nothing is left, drainLimit──► polling
//	 ▲                                                                │    ▲
//	 └──────────lingerPolls────────── lingering ◄──last device left───┘    │
//	                                      └──────────beforeConnect─────────┘
type held struct {
	holder  Holder
	devices []fleet.DeviceID // connected ones; of the calling goroutine

	poll   *heldPoll
	ending *time.Timer   // while lingering
	gone   chan struct{} // closed when the newest poll and all before it have ended
}

// heldPoll is one goroutine that polls.
type heldPoll struct {
	cancel  context.CancelFunc
	drained chan struct{} // closed when the module holds nothing from before
	stale   bool          // what comes is to be discarded; guarded by Worker.pollMu
	dropped int           // guarded by Worker.pollMu
}

// beforeConnect begins to fetch commands, unless that goes on. What the module holds
// from the time without devices is stale if DiscardCommands was called, and then
// discarded before it hears of the device (DEV-3, DEF-38). After a restart or a change
// of the configuration it is wanted (RES-13): then the car did not call it.
func (w *Worker) beforeConnect() {
	h := &w.held
	if h.holder == nil {
		return
	}
	stale := w.stale.Swap(false)
	w.pollMu.Lock()
	if w.pollEnded || w.endsPolling() {
		w.pollMu.Unlock()
		return
	}
	if h.ending != nil {
		h.ending.Stop()
		h.ending = nil
	}
	p := h.poll
	if p == nil {
		p = w.beginPoll(stale)
	}
	w.pollMu.Unlock()

	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	select {
	case <-p.drained:
	case <-limit.C:
	case <-w.callCtx.Done():
	}
	w.pollMu.Lock()
	n := p.dropped
	p.stale, p.dropped = false, 0
	w.pollMu.Unlock()
	if n > 0 {
		w.log.Info("commands that the module held from the time without device were discarded", "commands", n)
		w.opts.Stale(n)
	}
}

// afterConnect takes note of the answer to device_connected.
func (w *Worker) afterConnect(device fleet.Device, err error) {
	h := &w.held
	if h.holder == nil {
		return
	}
	if id := device.ID(); err == nil && !slices.Contains(h.devices, id) {
		h.devices = append(h.devices, id)
	}
	w.linger()
}

// afterDisconnect takes note of a device that is gone, whatever the module says.
func (w *Worker) afterDisconnect(device fleet.Device) {
	h := &w.held
	if h.holder == nil {
		return
	}
	id := device.ID()
	h.devices = slices.DeleteFunc(h.devices, func(other fleet.DeviceID) bool { return other == id })
	w.linger()
}

// linger ends the poll in a while if no device is connected.
func (w *Worker) linger() {
	h := &w.held
	if len(h.devices) > 0 {
		return
	}
	h.devices = nil
	w.pollMu.Lock()
	defer w.pollMu.Unlock()
	if h.poll == nil || h.ending != nil || w.pollEnded {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(lingerPolls, func() {
		w.pollMu.Lock()
		defer w.pollMu.Unlock()
		if h.ending == timer {
			h.poll.cancel()
			h.poll, h.ending = nil, nil
		}
	})
	h.ending = timer
}

// beginPoll starts a poll. pollMu is held.
func (w *Worker) beginPoll(stale bool) *heldPoll {
	h := &w.held
	ctx, cancel := context.WithCancel(context.Background())
	p := &heldPoll{cancel: cancel, drained: make(chan struct{}), stale: stale}
	before, gone := h.gone, make(chan struct{})
	h.poll, h.gone = p, gone
	go func() {
		defer close(gone)
		if before != nil {
			<-before // one asks at a time
		}
		w.drain(ctx, p)
		w.pollCommands(ctx, func(ctx context.Context) ([]fleet.Command, error) {
			return h.holder.FetchCommands(ctx, Held)
		})
	}()
	return p
}

// drain discards what the module holds, until that is nothing or beforeConnect waits
// for it no longer.
func (w *Worker) drain(ctx context.Context, p *heldPoll) {
	defer close(p.drained)
	for range drainRounds {
		w.pollMu.Lock()
		stale := p.stale
		w.pollMu.Unlock()
		if !stale {
			return
		}
		commands, err := w.fetchCommands(ctx, func(ctx context.Context) ([]fleet.Command, error) {
			return w.held.holder.FetchCommands(ctx, Brief)
		})
		w.pollMu.Lock()
		if stale = p.stale; stale {
			p.dropped += len(commands)
		}
		w.pollMu.Unlock()
		if !stale { // it came after device_connected
			w.fetchedCommands(commands)
			return
		}
		w.fetched.Add(uint64(len(commands)))
		w.discard(commands)
		if err != nil && ctx.Err() == nil {
			w.pollFailed(err)
		}
		if err != nil || len(commands) == 0 {
			return
		}
	}
	w.limit.Log(w.log, slog.LevelWarn, "the module always has commands while no device is connected; "+
		"only the first batches are discarded", slog.Int("batches", drainRounds))
}

// end ends the poll; done is called when it is gone. pollMu is held.
func (h *held) end(done func()) {
	if h.ending != nil {
		h.ending.Stop()
		h.ending = nil
	}
	if h.poll != nil {
		h.poll.cancel()
		h.poll = nil
	}
	if h.gone == nil {
		done()
		return
	}
	go func() {
		<-h.gone
		done()
	}()
}
