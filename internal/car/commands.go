package car

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/session"
	"external-server/internal/session/record"
)

// fetch hands the session what a module's worker has fetched, as far as it has room.
// The rest stays in the worker, which asks the module for no more meanwhile.
func (o *occupant) fetch(module int32) {
	m := o.find(module)
	if m == nil {
		return // of the occupant before
	}
	var commands []fleet.Command
	left := false
	if o.session.Stale(module) {
		commands = m.worker.TakeStale()
	} else {
		commands, left = m.worker.TakeCommands(o.session.CommandRoom(module))
	}
	at := slices.Index(o.unfetched, module)
	switch {
	case left && at < 0:
		o.unfetched = append(o.unfetched, module)
	case !left && at >= 0:
		o.unfetched = slices.Delete(o.unfetched, at, at+1)
	}
	if len(commands) > 0 {
		o.now = time.Now()
		o.tellCommands(module, commands)
		o.step(o.now, session.Event{Kind: session.EventCommands, Module: module, Commands: commands, Position: commands[len(commands)-1].Position})
	}
}

// recordPositions notes in the journal how far the modules have fetched when a session
// begins: what comes later is wanted, also by another process.
func (o *occupant) recordPositions() {
	if o.opts.Journal == nil {
		return
	}
	for _, m := range o.modules {
		if p, ok := module.Opened(m.instance).(module.Positioned); ok {
			if position := p.Position(); position != nil {
				o.opts.Journal.Append(record.Begin(nil, o.opts.ID.String()).Position(m.number, position))
				o.session.SetPosition(m.number, position)
			}
		}
	}
}

// fetchLeft is fetch for the modules whose commands found no room before.
func (o *occupant) fetchLeft() {
	for _, module := range slices.Clone(o.unfetched) {
		o.fetch(module)
	}
}
