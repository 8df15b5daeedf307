package sim

import (
	"strconv"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
	"external-server/internal/session/record"
)

type durableJob struct {
	kind   jobKind
	device fleet.Device
	ticket uint64
	data   string
	number uint64
	again  bool
}

// durableWorker is one module of the car in one process. What it was handed is
// remembered by the world, which outlives it.
type durableWorker struct {
	s      *durableServer
	number int32
	jobs   []durableJob
	queued int
	busy   bool
	known  map[fleet.DeviceID]bool
}

func (w *durableWorker) room() int { return w.s.w.sc.Queue - w.queued }

func (w *durableWorker) put(j durableJob) {
	if j.kind == jobStatus {
		if w.room() <= 0 && !j.again {
			w.s.w.fail("REC-22: status %q does not fit into the queue of module %d", j.data, w.number)
		}
		w.queued++
	}
	w.jobs = append(w.jobs, j)
	w.work()
}

func (w *durableWorker) work() {
	if w.busy || len(w.jobs) == 0 {
		return
	}
	w.busy = true
	took := time.Duration(w.s.rnd.Int64N(int64(time.Millisecond)))
	if w.s.w.awaited[w.number] && w.s.w.leisurely() && w.s.rnd.IntN(3) == 0 { // the broker hears of the status before its answer leaves
		took = time.Duration(w.s.rnd.Int64N(int64(500 * time.Millisecond)))
	}
	w.s.soon(took, w.finish)
}

func (w *durableWorker) finish() {
	if wait := w.s.w.stalled[w.number] - w.s.w.now; wait > 0 {
		w.s.soon(wait, w.finish)
		return
	}
	j := w.jobs[0]
	w.jobs = append(w.jobs[:0], w.jobs[1:]...)
	w.busy = false
	id := j.device.ID()
	switch j.kind {
	case jobConnected:
		if w.known[id] {
			w.s.w.fail("device_connected of module %d for %v, which is connected", w.number, j.device)
		}
		w.known[id] = true
		w.s.step(session.Event{Kind: session.EventAdmission, Ticket: j.ticket, Admitted: true}, 0)
	case jobStatus:
		w.queued--
		if !w.known[id] {
			w.s.w.fail("forward_status of module %d for %v, which is not connected", w.number, j.device)
		}
		w.s.w.handed(w.s.life, w.number, j)
		w.s.batch = append(w.s.batch, record.Begin(nil, durableCar).Delivered(w.number, j.number))
		if w.s.w.awaited[w.number] {
			w.s.step(session.Event{Kind: session.EventDelivered, Module: w.number, Number: j.number}, 0)
		}
	case jobDisconnected:
		if !w.known[id] {
			w.s.w.fail("device_disconnected of module %d for %v, which it does not know", w.number, j.device)
		}
		delete(w.known, id)
	}
	if w.s.alive {
		w.work()
	}
}

func (w *durableWorker) planCommand() {
	mean := w.s.w.sc.CommandEvery
	if mean == 0 {
		return
	}
	w.s.soon(time.Duration(w.s.rnd.Int64N(int64(2*mean))), func() {
		var commands []fleet.Command
		for range 1 + w.s.rnd.IntN(3) {
			d := w.s.w.sc.Devices[w.s.rnd.IntN(len(w.s.w.sc.Devices))]
			if d.Module == w.number {
				w.s.w.commands++
				commands = append(commands, fleet.Command{Device: d.ForModule(), Data: strconv.AppendUint([]byte("c"), w.s.w.commands, 10)})
			}
		}
		if len(commands) > 0 {
			w.s.step(session.Event{Kind: session.EventCommands, Module: w.number, Commands: commands}, 0)
		}
		w.planCommand()
	})
}

// statusKey takes session and counter out of a payload.
func statusKey(data string) (sessionID string, counter uint32) {
	words := strings.SplitN(data, " ", 3)
	n, _ := strconv.ParseUint(words[1], 10, 32)
	return words[0], uint32(n)
}
