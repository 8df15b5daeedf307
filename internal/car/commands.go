package car

import (
	"slices"
	"time"

	"external-server/internal/session"
)

// fetch hands the session what a module's worker has fetched, as far as it has room.
// The rest stays in the worker, which asks the module for no more meanwhile.
func (c *Car) fetch(module int32) {
	commands, left := c.find(module).worker.TakeCommands(c.session.CommandRoom(module))
	at := slices.Index(c.unfetched, module)
	switch {
	case left && at < 0:
		c.unfetched = append(c.unfetched, module)
	case !left && at >= 0:
		c.unfetched = slices.Delete(c.unfetched, at, at+1)
	}
	if len(commands) > 0 {
		c.now = time.Now()
		c.tellCommands(module, commands)
		c.step(c.now, session.Event{Kind: session.EventCommands, Module: module, Commands: commands})
	}
}

// fetchLeft is fetch for the modules whose commands found no room before.
func (c *Car) fetchLeft() {
	for _, module := range slices.Clone(c.unfetched) {
		c.fetch(module)
	}
}
