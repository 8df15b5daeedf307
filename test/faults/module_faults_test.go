package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"external-server/internal/support/brokertest"
)

// twoModules starts a fleet of which one half uses the module that will fail, the
// other half another one.
func (r *rig) twoModules(full, short int, period time.Duration) {
	r.Helper()
	r.startBroker(false, brokertest.Options{})
	cars := fleetOf("other", r.size(full, short), spare, fleetOf("car", r.size(full, short), recorder, nil))
	r.configure(cars)
	r.config["limits"] = obj{"module_queue": 20}
	r.startServer()
	r.server.WaitLog("connected to the broker")
	r.startCars(cars, period)
}

// host returns the process that runs the library of the module.
func (r *rig) host(module int32) int {
	r.Helper()
	for _, reaper := range r.children(r.server.PID()) {
		for _, pid := range r.children(reaper) {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if strings.Contains(string(line), r.libraries[module]) {
				return pid
			}
		}
	}
	return 0
}

// children returns the processes that a process has started.
func (r *rig) children(pid int) []int {
	r.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		r.Fatal(err)
	}
	var out []int
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // a thread may be gone by now
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				r.Fatal(err)
			}
			out = append(out, child)
		}
	}
	return out
}

func moduleFaults() []scenario {
	return []scenario{
		// DEF-23, MOD-4, REC-8: order and announcements survive the process.
		{"module-kill", "process of a module killed every second for a minute", true, func(r *rig) {
			r.twoModules(50, 5, r.during(500*time.Millisecond, 100*time.Millisecond))
			killed := 0
			for range r.size(60, 4) {
				if pid := r.host(recorder); pid != 0 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
					killed++
				}
				pause(time.Second)
			}
			r.row.Note = fmt.Sprintf("killed %d times", killed)
			r.recovered(time.Now())
			r.unaffected(r.group("other"))
			r.finish("")
		}},
		// DEF-23, STAT-30: answered is delivered.
		{"module-crash", "library aborts in forward_status, ten times", true, func(r *rig) {
			r.twoModules(50, 5, r.during(500*time.Millisecond, 100*time.Millisecond))
			for range r.size(10, 2) {
				r.touch(r.trigger(recorder, "crash"))
				for r.exists(r.trigger(recorder, "crash")) {
					pause(5 * time.Millisecond)
				}
			}
			r.server.WaitLog("SIGABRT")
			r.recovered(time.Now())
			r.unaffected(r.crew.cars) // not even those of the module
			r.finish("")
		}},
		// REC-8, REC-22, DEF-22: answers go on until the queue is full.
		{"module-hang", "library hangs for 25 s, queue of 20 statuses full", true, func(r *rig) {
			r.twoModules(20, 5, 100*time.Millisecond)
			r.touch(r.trigger(recorder, "hang"))
			pause(r.during(25*time.Second, 4*time.Second))
			r.remove(r.trigger(recorder, "hang"))
			r.recovered(time.Now())
			r.unaffected(r.crew.cars) // the gateways wait 30 s for an answer
			r.finish("")
		}},
	}
}

func (r *rig) exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
