package record

import (
	"errors"
	"fmt"
	"slices"
)

// Resumption is what a journal knows of one car.
type Resumption struct {
	Record    *Session // nil: the car had no session in normal communication
	Left      []Left   // per module in order
	Numbers   []Number // of the next status per module
	Positions []Position
	Next      uint32 // counter of the next command of the car (CMD-3)
	// Hint: it was left by a server that failed, see Carried. The status that is next is Record.Expected
	// or a later one (RES-23); of Left there is only what Record.Owed names. nil: neither.
	Hint *Hint
	// Local: the process goes on, only what served the car has failed. All commands have
	// left, and a status that comes again was not answered.
	Local bool

	dropped []int32 // the module of each status that Drop took out
}

// Number is the number that the next status of a module gets.
type Number struct {
	Module int32
	Next   uint64
}

// Position is how far a module has fetched commands; its meaning is the module's.
type Position struct {
	Module int32
	Bytes  []byte
}

// Position returns that of the module, nil if there is none or the session of the car does
// not go on: what was fetched for it is stale then (DEF-38). r may be nil.
func (r *Resumption) Position(module int32) []byte {
	if r == nil || r.Record == nil {
		return nil
	}
	for _, p := range r.Positions {
		if p.Module == module {
			return p.Bytes
		}
	}
	return nil
}

// Heads returns the statuses with which the modules begin: the oldest of each that is
// left. If a status has ended the process before, it is one of these.
func (r *Resumption) Heads() (heads []Left) {
	for _, l := range r.Left {
		if !slices.ContainsFunc(heads, func(h Left) bool { return h.Device.Module == l.Device.Module }) {
			heads = append(heads, l)
		}
	}
	return heads
}

// Drop takes the oldest status of a module that is left out and counts it, see GivenUp.
func (r *Resumption) Drop(module int32) {
	if i := slices.IndexFunc(r.Left, func(l Left) bool { return l.Device.Module == module }); i >= 0 {
		r.Left = slices.Delete(r.Left, i, i+1)
		r.dropped = append(r.dropped, module)
	}
}

// GivenUp is how many statuses of the module were dropped. r may be nil.
func (r *Resumption) GivenUp(module int32) (statuses int) {
	if r == nil {
		return 0
	}
	for _, m := range r.dropped {
		if m == module {
			statuses++
		}
	}
	return statuses
}

// Hint is what is known of the next status in a session that a failed server had.
type Hint struct {
	Come   bool   // statuses have come, while all was read that the broker held
	Lowest uint32 // the first of them
}

// See takes in that a status has come.
func (h *Hint) See(counter uint32) {
	if !h.Come || int32(counter-h.Lowest) < 0 {
		h.Come, h.Lowest = true, counter
	}
}

// carriedVersion begins a record for another server.
const carriedVersion = 1

// BeginCarried begins a record for another server, see Carried, at the end of b.
func BeginCarried(b []byte) []byte { return append(b, carriedVersion) }

// Carried returns the Resumption with which another server takes a car over. data is what a server has
// recorded behind BeginCarried. A stranger may have changed it: the error says why it cannot be used.
func Carried(car string, data []byte) (*Resumption, error) {
	if len(data) == 0 || data[0] != carriedVersion {
		return nil, fmt.Errorf("the record of a session begins with %d, this program knows only those that begin with %d", append(data, 0)[0], carriedVersion)
	}
	f := NewFold()
	if err := f.Apply(data[1:]); err != nil {
		return nil, err
	}
	if cars := f.Cars(); len(cars) != 1 || cars[0] != car {
		return nil, fmt.Errorf("the record is of another car: %.64q", cars)
	}
	r, err := f.Car(car)
	if err != nil {
		return nil, err
	}
	if r.Record == nil || r.Record.ID == "" {
		return nil, errors.New("the record is none of a session in normal communication")
	}
	if err := errors.Join(r.Record.check(), r.checkOwed()); err != nil {
		return nil, err
	}
	r.Record.Settled = false
	if r.Hint == nil {
		r.Hint = new(Hint)
	}
	return r, nil
}

// checkOwed looks for what no server has recorded.
func (r *Resumption) checkOwed() error {
	owed := r.Record.Owed
	for i := range owed {
		if i > 0 && int32(owed[i].Counter-owed[i-1].Counter) <= 0 || int32(owed[i].Counter-r.Record.Expected) >= 0 {
			return errors.New("the record holds answers out of order")
		}
	}
	for i := range r.Left {
		l := &r.Left[i]
		if !slices.ContainsFunc(owed, func(o Owed) bool { return o.Awaited && o.Module == l.Device.Module && o.Number == l.Number }) {
			return errors.New("the record has a status of which no answer is held")
		}
	}
	return nil
}
