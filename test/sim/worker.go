package sim

import (
	"strconv"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// jobKind is a call of a module.
type jobKind uint8

const (
	jobConnected jobKind = iota
	jobStatus
	jobDisconnected
	jobAck
	jobAsk
)

type job struct {
	kind    jobKind
	device  fleet.Device
	ticket  uint64
	session string
	counter uint32
}

// worker is one module of the car: a bounded queue, one call at a time, and what
// the module itself knows of its devices.
type worker struct {
	s      *server
	number int32
	jobs   []job
	inbox  []fleet.Command // that found no room in the core
	queued int             // statuses among them
	busy   bool

	known map[fleet.DeviceID]bool // true: connected, false: refused since
	types map[uint32]bool         // answers of is_device_type_supported

	lastSession string
	lastCounter uint32
}

func newWorker(s *server, number int32) *worker {
	return &worker{s: s, number: number, known: make(map[fleet.DeviceID]bool), types: make(map[uint32]bool)}
}

func (w *worker) room() int { return w.s.w.sc.Queue - w.queued }

func (w *worker) put(j job) {
	if j.kind == jobStatus {
		if w.room() <= 0 {
			w.s.w.fail("REC-22: status %d of session %q does not fit into the queue of module %d", j.counter, j.session, w.number)
		}
		w.queued++
	}
	w.jobs = append(w.jobs, j)
	w.work()
}

// ask puts a question about a type in the place of an earlier one that waits.
func (w *worker) ask(j job) {
	for i := range w.jobs {
		if w.jobs[i].kind == jobAsk && (i > 0 || !w.busy) {
			w.jobs[i] = j
			return
		}
	}
	w.put(j)
}

// work makes the next call, which takes its time.
func (w *worker) work() {
	if w.busy || len(w.jobs) == 0 {
		return
	}
	w.busy = true
	f := w.s.w.fault(w.number)
	took := time.Duration(w.s.rnd.Int64N(int64(time.Millisecond)))
	if w.s.w.now < f.slow {
		took = time.Duration(w.s.rnd.Int64N(int64(3 * time.Second)))
	}
	w.s.soon(took, w.finish)
}

// finish ends the call in progress, unless the module is stalled.
func (w *worker) finish() {
	f := w.s.w.fault(w.number)
	if wait := f.stalled - w.s.w.now; wait > 0 {
		w.s.soon(wait, w.finish)
		return
	}
	j := w.jobs[0]
	w.jobs = append(w.jobs[:0], w.jobs[1:]...)
	w.busy = false
	id := j.device.ID()
	connected, known := w.known[id]
	switch j.kind {
	case jobConnected:
		if connected {
			w.s.w.fail("device_connected of module %d for %v, which is connected", w.number, j.device)
		}
		supported := w.supports(j.device.Type)
		admitted := supported && w.s.w.now >= f.refuses
		w.known[id] = admitted
		w.s.put(session.Event{Kind: session.EventAdmission, Ticket: j.ticket, Admitted: admitted, Unsupported: !supported})
	case jobAsk:
		supported := w.supports(j.device.Type)
		w.s.put(session.Event{Kind: session.EventAdmission, Ticket: j.ticket, Admitted: supported, Unsupported: !supported})
	case jobStatus:
		w.queued--
		w.status(j, known)
	case jobDisconnected:
		if !known {
			w.s.w.fail("device_disconnected of module %d for %v, which it does not know", w.number, j.device)
		}
		delete(w.known, id)
	}
	if w.s.alive {
		w.work()
	}
}

// supports asks the module and remembers the answer.
func (w *worker) supports(deviceType uint32) bool {
	w.types[deviceType] = supports(w.number, deviceType)
	return w.types[deviceType]
}

// knows tells whether the module was asked about the type before.
func (w *worker) knows(deviceType uint32) bool {
	_, known := w.types[deviceType]
	return known
}

// status checks the order in which the module gets statuses (STAT-6, REC-8).
func (w *worker) status(j job, known bool) {
	if !known {
		w.s.w.fail("forward_status of module %d for %v, which is not connected", w.number, j.device)
	}
	if j.session == w.lastSession && int32(j.counter-w.lastCounter) <= 0 && !w.s.w.excused() {
		w.s.w.fail("STAT-6: module %d gets status %d after %d of session %q", w.number, j.counter, w.lastCounter, j.session)
	}
	w.lastSession, w.lastCounter = j.session, j.counter
	w.s.w.delivered++
}

// planCommand lets the module issue commands from time to time, also for devices
// that are gone or not its own.
func (w *worker) planCommand() {
	mean := w.s.w.sc.CommandEvery
	if mean == 0 {
		return
	}
	w.s.soon(time.Duration(w.s.rnd.Int64N(int64(2*mean))), func() {
		w.command()
		w.planCommand()
	})
}

func (w *worker) command() {
	n := 1
	if w.s.rnd.IntN(4) == 0 {
		n += w.s.rnd.IntN(4)
	}
	var commands []fleet.Command
	for range n {
		d := w.s.w.sc.Devices[w.s.rnd.IntN(len(w.s.w.sc.Devices))]
		if d.Module != w.number && w.s.rnd.IntN(8) > 0 {
			continue
		}
		d.Priority, d.Name = 0, "by the module" // DEF-11, DEF-32
		w.s.w.commands++
		commands = append(commands, fleet.Command{Device: d, Data: strconv.AppendUint([]byte("c"), w.s.w.commands, 10)})
	}
	if len(commands) > 0 {
		w.inbox = append(w.inbox, commands...)
		if w.s.alive && w.s.w.now >= w.s.paused {
			w.fetch()
		}
	}
}

// fetch hands the core what it has room for (REC-22).
func (w *worker) fetch() {
	n := len(w.inbox)
	if w.s.w.sc.MaxUnacked > 0 {
		room, _ := w.s.core.CommandRoom(w.number)
		if l := w.s.core.Load(); room == 0 && l.Pending == 0 && l.Unacked < w.s.w.sc.MaxUnacked {
			w.s.w.fail("REC-22: no room for a command of module %d although %d are under way", w.number, l.Unacked)
		}
		n = min(n, room)
	}
	if n == 0 {
		return
	}
	commands := w.inbox[:n:n]
	w.inbox = w.inbox[n:]
	w.s.put(session.Event{Kind: session.EventCommands, Module: w.number, Commands: commands})
}
