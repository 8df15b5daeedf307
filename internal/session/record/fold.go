package record

import (
	"fmt"
	"maps"
	"slices"

	"external-server/internal/fleet"
)

// Fold is what the records of a journal say together: the state of each car at the
// end of the last one. It is not safe for concurrent use.
type Fold struct{ cars map[string]*folded }

// folded is one car of a Fold.
type folded struct {
	record    *Session // nil: no session in normal communication
	left      []Left
	numbers   map[int32]uint64
	positions map[int32][]byte
	next      uint32
	hint      *Hint // the status that is next is not known exactly; nil: it is
	unusable  error // why the session must not be resumed
}

// NewFold returns a Fold without cars.
func NewFold() *Fold { return &Fold{cars: make(map[string]*folded)} }

// Apply adds the next record. An error says that the record cannot be understood;
// its car, if it has one, is not resumed, and what was accepted of it before is
// still delivered. data is not kept.
func (f *Fold) Apply(data []byte) error {
	r := &reader{b: data}
	if v := r.byte(); r.err == nil && v != recordVersion {
		return fmt.Errorf("a record has version %d, this program knows %d", v, recordVersion)
	}
	name := r.text()
	if r.err != nil {
		return fmt.Errorf("a record without car: %w", r.err)
	}
	c := f.cars[name]
	if c == nil {
		c = &folded{numbers: make(map[int32]uint64), positions: make(map[int32][]byte)}
		f.cars[name] = c
	}
	for len(r.b) > 0 && r.err == nil {
		if err := c.entry(r); err != nil {
			r.fail(err)
		}
	}
	if r.err != nil {
		c.unusable = r.err
		return fmt.Errorf("a record of car %.64q: %w", name, r.err)
	}
	if c.record == nil && len(c.left) == 0 && c.unusable == nil && c.next == 0 && len(c.positions) == 0 {
		delete(f.cars, name)
	}
	return nil
}

// entry applies one entry.
func (c *folded) entry(r *reader) error {
	kind := entryKind(r.byte())
	switch kind {
	case entrySession:
		c.record, c.unusable, c.hint = r.record(), nil, nil // it needs nothing of what came before
		c.next = c.record.Next
	case entryEnded:
		c.record = nil
	case entryStatus:
		return c.status(r)
	case entryDelivered:
		c.delivered(r.int32(), r.uvarint())
	case entryPosition:
		module := r.int32()
		c.positions[module] = r.copied()
	case entryLeft:
		if l := r.left(); !c.has(&l) {
			c.addLeft(l)
		}
	case entryNumbers:
		c.next = r.uint32()
		for range r.count() {
			module := r.int32()
			c.numbers[module] = r.uvarint()
		}
	case entryTried:
		c.tried(r.int32(), r.uvarint(), r.uvarint())
	case entryForgotten:
		clear(c.numbers)
		clear(c.positions)
		c.record, c.left, c.next, c.unusable = nil, nil, 0, nil
	case entryHint:
		h := r.hint()
		c.hint = &h
	case entrySettled:
		if c.record != nil {
			c.record.Settled = true
		}
	case entryRecovering:
		if c.record != nil && !c.record.Settled {
			c.record.Recovering = true
		}
	case entryRecovered:
		if s := c.record; s != nil {
			s.Recovering = false
		}
	case entryDevices, entryHeld, entryCommand, entryResponse, entryOwed, entryAnswered, entryBefore:
		if c.record == nil {
			return fmt.Errorf("an entry of kind %d without session", kind)
		}
		return c.change(kind, r)
	default:
		return fmt.Errorf("an entry of unknown kind %d", kind)
	}
	return r.err
}

// change applies an entry that needs a session.
func (c *folded) change(kind entryKind, r *reader) error {
	s := c.record
	switch kind {
	case entryDevices:
		s.Devices, s.WithModule = r.devices()
	case entryOwed:
		s.owe(r.owed())
	case entryAnswered:
		s.answered(r.uint32())
		s.Settled = false
	case entryBefore:
		arrived, before := r.uint32(), r.uint32()
		for i := range s.Commands {
			s.Commands[i].Before = BeforeOf(uint32(i) < arrived, before)
		}
	case entryHeld:
		m := r.held()
		m.SessionID = s.ID
		if c.hint != nil {
			c.hint.See(m.Counter)
		}
		if !s.Counting && len(s.Ahead) == 0 {
			s.begin(m.Counter)
		}
		s.Ahead = slices.DeleteFunc(s.Ahead, func(o fleet.ClientMessage) bool { return o.Counter == m.Counter })
		s.Ahead = append(s.Ahead, m)
	case entryCommand:
		counter := r.uint32()
		if counter != s.Next {
			return fmt.Errorf("command %d follows, %d was expected", counter, s.Next)
		}
		s.Settled = false
		s.Commands = append(s.Commands, r.command())
		s.Next++
		c.next = s.Next
	case entryResponse:
		counter, response := r.uint32(), fleet.ResponseType(r.int32())
		i := int(counter - (s.Next - uint32(len(s.Commands))))
		if i < 0 || i >= len(s.Commands) {
			return fmt.Errorf("a response to command %d, which is not waiting", counter)
		}
		s.Commands[i].Responded, s.Commands[i].Response = true, response
		n := 0
		for n < len(s.Commands) && s.Commands[n].Responded { // CMD-20
			n++
		}
		s.Commands = slices.Delete(s.Commands, 0, n)
	}
	return r.err
}

// status applies entryStatus.
func (c *folded) status(r *reader) error {
	flags, counter := r.byte(), r.uint32()
	if flags&StatusForwarded != 0 {
		l := r.left()
		if r.err != nil {
			return r.err
		}
		c.addLeft(l)
	}
	if r.err != nil || flags&StatusRunning == 0 {
		return r.err
	}
	s := c.record
	if s == nil {
		return fmt.Errorf("status %d of no session", counter)
	}
	if !s.Counting {
		s.Counting, s.First = true, counter
		if len(s.Ahead) == 0 {
			s.begin(counter)
		}
	}
	s.Expected, s.Settled = counter+1, false
	s.Ahead = slices.DeleteFunc(s.Ahead, func(o fleet.ClientMessage) bool { return o.Counter == counter })
	if flags&StatusAnswered == 0 {
		s.Passed = AppendPassed(s.Passed, counter)
	}
	return nil
}

// has tells whether the status is among those that are left.
func (c *folded) has(l *Left) bool {
	return l.Number < c.numbers[l.Device.Module] && slices.ContainsFunc(c.left, func(o Left) bool {
		return o.Device.Module == l.Device.Module && o.Number == l.Number
	})
}

func (c *folded) addLeft(l Left) {
	c.left = append(c.left, l)
	c.numbers[l.Device.Module] = l.Number + 1
}

func (c *folded) delivered(module int32, number uint64) {
	c.left = slices.DeleteFunc(c.left, func(l Left) bool { return l.Device.Module == module && l.Number <= number })
}

func (c *folded) tried(module int32, number, times uint64) {
	for i := range c.left {
		if l := &c.left[i]; l.Device.Module == module && l.Number == number {
			l.Tried += times
		}
	}
}

// Snapshot hands out records that, applied to a new Fold, say the same. A record is
// valid until emit returns.
func (f *Fold) Snapshot(emit func(record []byte)) {
	var e Entries
	for _, name := range f.Cars() {
		c := f.cars[name]
		if c.unusable == nil && c.record != nil {
			e = Begin(e[:0], name).Session(c.record)
			if c.record.Settled {
				e = e.Settled()
			}
			if c.hint != nil {
				e = e.Hint(*c.hint)
			}
			emit(e)
		}
		for i := range c.left {
			l := &c.left[i]
			e = Begin(e[:0], name).Left(l)
			if l.Tried > 0 {
				e = e.Tried(l.Device.Module, l.Number, l.Tried)
			}
			emit(e)
		}
		e = Begin(e[:0], name)
		for _, p := range c.sortedPositions() {
			e = e.Position(p.Module, p.Bytes)
		}
		emit(e.Numbers(c.next, c.sortedNumbers()))
	}
}

func (c *folded) sortedNumbers() (out []Number) {
	for _, module := range slices.Sorted(maps.Keys(c.numbers)) {
		out = append(out, Number{module, c.numbers[module]})
	}
	return out
}

func (c *folded) sortedPositions() (out []Position) {
	for _, module := range slices.Sorted(maps.Keys(c.positions)) {
		out = append(out, Position{module, c.positions[module]})
	}
	return out
}

// Cars returns the names of the cars, sorted.
func (f *Fold) Cars() []string { return slices.Sorted(maps.Keys(f.cars)) }

// Car returns what the journal says of one car, nil if that is nothing. The result
// is the caller's and shares its bytes with the Fold. The error tells why its session
// cannot be resumed.
func (f *Fold) Car(name string) (*Resumption, error) {
	c := f.cars[name]
	if c == nil {
		return nil, nil
	}
	out := &Resumption{Record: c.record, Left: slices.Clone(c.left), Numbers: c.sortedNumbers(), Positions: c.sortedPositions(), Next: c.next}
	if c.unusable != nil {
		out.Record = nil
	}
	if out.Record != nil && c.hint != nil {
		out.Hint = new(*c.hint)
	}
	return out, c.unusable
}
