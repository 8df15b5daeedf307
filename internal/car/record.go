package car

import (
	"slices"

	"external-server/internal/session"
	"external-server/internal/session/record"
)

// Record makes the car write down its whole session if its journal has begun anew. It may
// be called from any goroutine; it does not wait.
func (s *Seat) Record() {
	if s.opts.Journal != nil {
		s.put(item{kind: kindRecord})
	}
}

// carry hands the session's record on if it has changed (RES-22).
func (o *occupant) carry() {
	v := o.session.Version()
	if v == o.version {
		return
	}
	o.version = v
	if cap(o.record) > maxIdleRecord {
		o.record = nil
	}
	o.record = o.session.AppendCarried(o.record[:0])
	o.opts.Carrier.Put(o.opts.ID, o.record)
}

// maxIdleRecord bounds the memory for records that an occupant keeps, bytes.
const maxIdleRecord = 4 << 10

// journal appends what a step has decided, nil: nothing, before its effects are performed. A
// journal that has begun anew gets everything instead.
func (o *occupant) journal(step []byte, effects []session.Effect) {
	j := o.opts.Journal
	var records [][]byte
	if step != nil {
		o.batch[0] = step
		records = o.batch[:]
	}
	anew := false
	for {
		now, ok := j.AppendAt(o.epoch, records...)
		if ok {
			break
		}
		o.epoch, records, anew = now, o.whole(effects), true
	}
	if anew {
		o.confirmed()
	}
}

// whole is what a journal has to know of the car: the statuses that its modules have not
// confirmed, those of the step and of modules that were replaced included, and the session.
func (o *occupant) whole(effects []session.Effect) (records [][]byte) {
	name := o.opts.ID.String()
	for _, m := range o.all() {
		for _, w := range m.worker.Waiting() {
			l := record.Left{Device: w.Device, Data: w.Data, Error: w.Error, Number: w.Number}
			records = append(records, record.Begin(nil, name).Left(&l))
		}
	}
	for i := range effects {
		if e := &effects[i]; e.Kind == session.EffectForward {
			l := record.Left{Device: e.Device, Data: e.Data, Error: e.Error, Number: e.Number}
			records = append(records, record.Begin(nil, name).Left(&l))
		}
	}
	return append(records, o.session.AppendRecord(nil)) // which says the numbers that are next
}

// confirmed says what the modules have confirmed meanwhile.
func (o *occupant) confirmed() {
	for _, m := range o.all() {
		if n := m.confirmed.Load(); n > 0 {
			o.opts.Journal.Append(record.Begin(nil, o.opts.ID.String()).Delivered(m.number, n-1))
		}
	}
}

// all are the modules that statuses may wait for: those of occupants that were replaced,
// oldest first, which still take what was accepted for them, and then the present ones.
func (o *occupant) all() []*boundModule {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Concat(o.closing, o.modules)
}

// closes notes modules that are about to be closed.
func (s *Seat) closes(modules []*boundModule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = append(s.closing, modules...)
}

// hasEnded forgets a module that was closed.
func (s *Seat) hasEnded(m *boundModule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = slices.DeleteFunc(s.closing, func(c *boundModule) bool { return c == m })
}
