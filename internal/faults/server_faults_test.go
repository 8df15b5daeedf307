package faults

import (
	"syscall"
	"time"
)

// inMemory is why a killed server may lose what it has answered.
const inMemory = "the queue of a library is in memory"

func serverFaults() []scenario {
	return []scenario{
		{"server-kill", "server killed (SIGKILL) under load and started again", true, func(r *rig) {
			r.manyCars(300, 20, false)
			r.server.Kill()
			at := time.Now()
			r.startServer()
			r.recovered(at)
			r.finish(inMemory)
		}},
		{"server-halt", "server halted (SIGSTOP) for 40 s", false, func(r *rig) {
			r.manyCars(300, 20, false)
			r.server.Signal(syscall.SIGSTOP)
			pause(40 * time.Second)
			r.server.Signal(syscall.SIGCONT)
			r.recovered(time.Now())
			r.finish("")
		}},
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
	}
}
