package module

import "time"

// Process is a module that runs in a process of its own. It is optional: what observes
// the server asks a module whether it is one.
type Process interface {
	// State may be called from any goroutine.
	State() ProcessState
}

// ProcessState describes a module that runs in a process of its own, for readiness,
// metrics and the administrator.
type ProcessState struct {
	Number       int32
	Name         string // library or command
	PID          int    // 0: no process
	Ready        bool   // the process answers and has all contexts
	OutOfService bool
	Silent       bool      // it has not answered a ping for more than a second: it hangs
	Slow         string    // the oldest call of the module that has not come back for more than 1.5 s, "" for none
	Since        time.Time // of the process, or of being out of service
	Restarts     uint64    // processes that were replaced
	LastExit     string    // reason of the last end, "" if there was none
	LastExitAt   time.Time
	RSS          int64 // resident memory in bytes
	Contexts     int
	Redelivered  uint64 // calls handed over again
	CommandsLost uint64 // taken out of the module and never seen by the server
}
