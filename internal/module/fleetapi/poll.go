package fleetapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// Pauses of the start-up flush (REC-20) and after failed polls.
const (
	flushMin = 100 * time.Millisecond
	flushMax = 250 * time.Millisecond // of the first attempts
	flushFew = 20                     // that many
	pollMax  = 30 * time.Second
)

var (
	errNoData   = errors.New("payload or data is missing or null; expected the data of the command")
	errNoDevice = errors.New("device_id is not complete; expected type from 0 to 4294967295 and a role")
)

// poller is the state of WaitCommands.
type poller struct {
	guard  guard
	primed bool  // the flush is done
	last   int64 // newest timestamp seen, ms (MM-10)
	failed int   // polls in a row
	next   time.Time
}

// WaitCommands makes one poll (MM-10). The first ones are short and discard what
// was stored before the start (REC-20); the others wait in the API until there
// is something, or its timeout. T_poll does not matter, as in the C++ libraries
// (MOD-15). A failed poll is no error: it returns nothing (MM-10), the pause
// before the next one grows, and the log tells why.
func (i *Instance) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	p := &i.poll
	if err := sleep(ctx, time.Until(p.next)); err != nil {
		return nil, err
	}
	if !p.primed {
		select {
		case i.host.flushes <- struct{}{}:
			defer func() { <-i.host.flushes }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	probe, err := i.host.polling.admit(ctx)
	if err != nil {
		return nil, err
	}
	// A probe has to tell soon whether the host is back.
	query := httpapi.Query{Since: p.last + 1, Wait: p.primed && !probe}
	messages, err := requestCommands(ctx, i.api, i.car, query)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	i.host.polling.report(probe, ctx.Err() != nil, unavailable(err))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return i.polled(messages, err), nil
}

// polled is what follows every poll: the guard, the flush, the commands.
func (i *Instance) polled(messages []httpapi.Message, err error) []fleet.Command {
	p := &i.poll
	now := time.Now()
	p.next = now
	var delayed bool
	if p.primed {
		var pause time.Duration
		pause, delayed = p.guard.after(now) // MM-6
		p.next = now.Add(pause)
	}
	switch {
	case err != nil && httpapi.StatusOf(err) != http.StatusNotFound: // HTTP-12: the car is unknown
		i.pollFailed(err, now)
		return nil
	case !p.primed:
		p.failed = 0
		i.flush(messages)
		return nil
	case delayed && i.kind.discardsDelayed: // MM-28: the same poll again
		return nil
	}
	p.failed = 0
	return i.commands(messages)
}

func requestCommands(ctx context.Context, a api, car fleet.CarID, query httpapi.Query) ([]httpapi.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return a.Commands(ctx, car, query)
}

// pollFailed sets the pause before the next poll, unless the guard's is longer.
func (i *Instance) pollFailed(err error, now time.Time) {
	p := &i.poll
	p.failed++
	longest := pollMax
	if unavailable(err) != nil {
		longest = retryMaxDown // beyond that the breaker decides
	} else {
		i.host.complain("commands", err)
	}
	if !p.primed && p.failed <= flushFew {
		longest = flushMax
	}
	pause := jitter(min(flushMin<<min(p.failed-1, 10), longest))
	if next := now.Add(pause); next.After(p.next) {
		p.next = next
	}
}

// flush ends the start-up flush: what is stored is older than the start. It is
// discarded and only its newest timestamp kept (REC-20).
func (i *Instance) flush(messages []httpapi.Message) {
	p := &i.poll
	own := 0
	for n := range messages {
		p.last = max(p.last, messages[n].Timestamp)
		if messages[n].DeviceID.ModuleID == int64(i.kind.number) {
			own++
		}
	}
	p.last = max(p.last, 1)
	p.primed = true
	i.position.Store(p.last)
	i.flushed.Store(true)
	if own > 0 {
		i.counters.flushed.Add(uint64(own))
		i.log.Info("commands from before the start are discarded", "car", i.car.Car, "commands", own)
	}
}

// commands returns the own commands in the order of the API (DEF-36). One that
// is not valid is skipped; the others are delivered (MM-14, MM-26, MM-35).
func (i *Instance) commands(messages []httpapi.Message) []fleet.Command {
	var out []fleet.Command
	for n := range messages {
		m := &messages[n]
		i.poll.last = max(i.poll.last, m.Timestamp)
		if m.DeviceID.ModuleID != int64(i.kind.number) {
			continue
		}
		command, err := i.command(m)
		if err != nil {
			i.counters.badCommands.Add(1)
			i.limit.Log(i.log, slog.LevelWarn, "command of the HTTP API is not valid and is skipped",
				slog.String("car", i.car.Car), slog.String("role", printable(m.DeviceID.Role)), slog.Any("error", err))
			continue
		}
		out = append(out, command)
	}
	i.counters.delivered.Add(uint64(len(out)))
	i.position.Store(i.poll.last)
	if n := len(out); n > 0 {
		out[n-1].Position = i.Position()
	}
	return out
}

// Position implements module.Positioned: the newest timestamp that was seen, in ms.
func (i *Instance) Position() []byte {
	if !i.flushed.Load() {
		return nil
	}
	return binary.AppendVarint(nil, i.position.Load())
}

// goOn makes the polls go on where those of an earlier process have stopped: nothing that
// was stored since is discarded (RES-13).
func (i *Instance) goOn(position []byte) {
	last, n := binary.Varint(position)
	if n <= 0 || last < 1 {
		return
	}
	i.poll.last, i.poll.primed = last, true
	i.position.Store(last)
	i.flushed.Store(true)
}

// command converts one message. A defect in it must cost this command, not the
// server: others may post to the API.
func (i *Instance) command(m *httpapi.Message) (_ fleet.Command, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the module panicked: %v", p)
		}
	}()
	var none fleet.Command
	data := bytes.TrimSpace(m.Payload.Data)
	if len(data) == 0 || string(data) == "null" { // MM-14
		return none, errNoData
	}
	if m.DeviceID.Type < 0 || m.DeviceID.Type > math.MaxUint32 || m.DeviceID.Role == "" {
		return none, errNoDevice
	}
	v, err := parse(data) // the encoding does not matter (MM-13)
	if err != nil {
		return none, err
	}
	body, err := i.kind.command(v)
	if err != nil {
		return none, err
	}
	return fleet.Command{
		Device: fleet.Device{
			Module: i.kind.number,
			Type:   uint32(m.DeviceID.Type),
			Role:   m.DeviceID.Role,
			Name:   m.DeviceID.Name,
		},
		Data: body,
	}, nil
}
