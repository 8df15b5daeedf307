package faults

import (
	"fmt"
	"syscall"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// inMemory is why a killed server may lose what it has answered.
const inMemory = "the queue of a library is in memory"

func serverFaults() []scenario {
	return []scenario{
		// GW-42, SESS-5: the gateways still believe in the old session.
		{"server-kill", "server killed (SIGKILL) under load and started again", true, func(r *rig) {
			r.manyCars(300, 20, false)
			r.server.Kill()
			at := time.Now()
			r.startServer()
			r.recovered(at)
			r.finish(inMemory)
		}},
		// DEF-27, SESS-7: messages that waited are handled before the timers.
		{"server-halt", "server halted (SIGSTOP) for 40 s", false, func(r *rig) {
			r.manyCars(300, 20, false)
			r.server.Signal(syscall.SIGSTOP)
			pause(40 * time.Second)
			r.server.Signal(syscall.SIGCONT)
			r.recovered(time.Now())
			r.finish("")
		}},
		// CLI-24, CONN-30, GW-40.
		{"server-stop", "server stopped (SIGTERM) under load and started again", true, func(r *rig) {
			r.manyCars(300, 20, false)
			begin := time.Now()
			if code := r.server.Stop(); code != 0 {
				r.Errorf("exit code %d", code)
			}
			r.row.Note = "stopped in " + time.Since(begin).Round(100*time.Millisecond).String()
			at := time.Now()
			r.startServer()
			r.recovered(at)
			r.finish("")
		}},
		// CLI-24, CONN-3, CONN-30, GW-40.
		{"upgrade", "server replaced by another version under load, then rolled back", true, func(r *rig) {
			old, fresh := servertest.Build(r, "old"), servertest.Build(r, "new")
			r.opts.Binary = old
			r.manyCars(300, 20, false)
			r.server.WaitLog("version=old")
			up := r.replace(fresh, "new")
			down := r.replace(old, "old")
			r.row.Recovery, r.row.recovered = down.all, true
			r.row.Note = fmt.Sprintf("from SIGTERM until nine of ten cars and all were served: upgrade %v, rollback %v", up, down)
			for _, c := range r.crew.cars {
				c.mu.Lock()
				if c.ends[gateway.ReasonNotified] == 0 {
					r.Errorf("car %s was not told that the server stops: %v", c.name, c.ends)
				}
				c.mu.Unlock()
			}
			r.finish("")
		}},
	}
}

// handover tells how long cars were not served.
type handover struct{ most, all time.Duration }

func (h handover) String() string {
	return fmt.Sprintf("%v and %v", h.most.Round(100*time.Millisecond), h.all.Round(100*time.Millisecond))
}

// replace stops the server and starts another build at once.
func (r *rig) replace(binary, version string) handover {
	r.Helper()
	begin := time.Now()
	if code := r.server.Stop(); code != 0 {
		r.Errorf("exit code %d", code)
	}
	r.opts.Binary = binary
	stopped := time.Now()
	r.startServer()
	r.server.WaitLog("version=" + version)
	var h handover
	for served := 0; served < len(r.crew.cars)*9/10; {
		served = 0
		for _, c := range r.crew.cars {
			if c.servedSince(stopped) {
				served++
			}
		}
		if time.Since(begin) > 2*testwait.Patience {
			r.Fatalf("%d of %d cars are served again", served, len(r.crew.cars))
		}
		pause(20 * time.Millisecond)
	}
	h.most = time.Since(begin)
	r.crew.served(stopped, 2*testwait.Patience)
	h.all = time.Since(begin)
	return h
}
