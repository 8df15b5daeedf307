package app

import (
	"os"
	"runtime/debug"

	"external-server/internal/config"
)

// manyCars is the number of cars from which on memory counts more than the time of
// the garbage collector.
const manyCars = 1000

// TuneMemory lets the garbage collector run earlier when many cars are configured,
// or any may come: their memory hardly changes, so that the room it leaves by default, as much as is
// in use, would be wasted, and collecting is rare. It concerns the whole process,
// so the command calls it, not New. The environment variable GOGC overrides it.
func TuneMemory(cfg *config.Config) {
	if os.Getenv("GOGC") == "" && (len(cfg.Cars) >= manyCars || cfg.AnyCar != nil) {
		debug.SetGCPercent(50)
	}
}
