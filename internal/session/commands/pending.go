package commands

import (
	"slices"

	"external-server/internal/fleet"
)

// Pending are the commands that are held back until normal communication (REC-13): one Batch for
// each module that has handed out any, in the order of the configuration (SEQ-31).
type Pending []Batch

// Batch are the commands of one module that are held back.
type Batch struct {
	Module   int32
	Commands []fleet.Command
	Position []byte // of the module behind them, nil: unknown
	bytes    int    // of the commands, see size
}

// Add holds back commands of a module. Of more than most commands the oldest are dropped, and their
// number is returned. place tells where a module stands in the configuration.
func (p *Pending) Add(module int32, place func(int32) int, commands []fleet.Command, position []byte, most int) (dropped int) {
	at, found := slices.BinarySearchFunc(*p, place(module), func(b Batch, at int) int { return place(b.Module) - at })
	if !found {
		*p = slices.Insert(*p, at, Batch{Module: module})
	}
	b := &(*p)[at]
	b.Commands = append(b.Commands, commands...)
	for i := range commands {
		b.bytes += size(&commands[i])
	}
	if position != nil {
		b.Position = position
	}
	if over := len(b.Commands) - most; over > 0 {
		b.Keep(append([]fleet.Command(nil), b.Commands[over:]...))
		return over
	}
	return 0
}

// Keep puts commands, which must be some of the Batch, in the place of all.
func (b *Batch) Keep(commands []fleet.Command) {
	b.Commands, b.bytes = commands, 0
	for i := range commands {
		b.bytes += size(&commands[i])
	}
}

// Load returns how many commands of the module are held back, and how many bytes of them.
func (p Pending) Load(module int32) (commands, bytes int) {
	for i := range p {
		if p[i].Module == module {
			return len(p[i].Commands), p[i].bytes
		}
	}
	return 0, 0
}

// Len counts the commands of all modules.
func (p Pending) Len() int {
	n := 0
	for i := range p {
		n += len(p[i].Commands)
	}
	return n
}
