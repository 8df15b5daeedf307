package roster

import (
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/observe"
)

// mayDiscard tells of libraries that were made anew for a session that goes on: some, as
// the known ones of the modules 1 to 3, discard at their first poll what their API has
// taken meanwhile (MM-10), and nothing in their interface keeps them from it. There is an
// event for each car and module, and one line for the fleet.
func (r *Roster) mayDiscard(id fleet.CarID, cc config.Car) {
	for _, m := range cc.Modules {
		if m.LibPath == "" {
			continue
		}
		const text = "commands that its API took while the server was away are lost if the library discards them at its first poll; built-in modules go on where they were"
		if r.hub != nil {
			r.hub.Events.Put(observe.Event{Kind: observe.KindFault, Car: id.Car, Module: m.Number, Reason: "library made anew for a resumed session", Text: text})
		}
		r.discards.Do(func() {
			r.log.Warn("library made anew for resumed sessions: "+text, "module", m.Number, "library", m.LibPath, "first_car", id.Car)
		})
	}
}
