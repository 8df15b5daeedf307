package car

import (
	"context"
	"errors"
	"time"

	"external-server/internal/link"
	"external-server/internal/session"
)

// leave gives the seat up for good.
func (s *Seat) leave(ctx context.Context) error {
	kind := session.EventStop
	fenced := errors.Is(context.Cause(ctx), link.ErrFenced)
	suspend := fenced || errors.Is(context.Cause(ctx), link.ErrSuspend)
	if errors.Is(context.Cause(ctx), ErrReload) {
		kind = session.EventReload
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(s.stop.Load()))
	defer cancel()
	s.turn.Lock()
	if s.left {
		s.turn.Unlock()
		s.ending.Wait()
		return nil
	}
	s.left = true
	o, tell := s.occupant.Load(), false
	var err error
	if o != nil {
		switch err = s.rest(bound, o); {
		case err != nil:
		case suspend:
			o.stopTimer()
		default:
			tell, _ = o.conclude(kind)
		}
		if o.hasFailed() {
			o.forsake()
		}
	}
	left := s.mail.close()
	s.turn.Unlock()
	if o != nil {
		if fenced { // the other server's statuses are newer than what waits
			o.abandon()
		}
		err = errors.Join(err, o.release(bound, suspend && s.opts.Journal != nil))
	}
	s.ending.Wait()
	if suspend { // what waits was not acknowledged and comes again
		return err
	}
	// The gateway connects anew at once, and an unheard Connect costs it 15 s.
	// So it is told last: another server that takes over has the shortest time to be
	// there in.
	if tell {
		s.port.NotifyDisconnect()
	}
	s.closePort(left)
	return err
}

// abandon keeps the modules from being called with what still waits for them.
func (o *occupant) abandon() {
	for _, m := range o.modules {
		m.worker.Abandon()
	}
}

// EndPolling lets the modules be asked for no more commands, and waits until the session
// has what they were asked for before, or ctx ends: a module may need as long for it as
// its timeout is. It is for a seat that will be suspended and is served until then.
func (s *Seat) EndPolling(ctx context.Context) {
	o := s.occupant.Load()
	if o == nil {
		return
	}
	last := make([]<-chan struct{}, len(o.modules))
	for i, m := range o.modules {
		last[i] = m.worker.EndPolling()
	}
	wait := func(done <-chan struct{}) {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	for _, ended := range last {
		wait(ended)
	}
	wait(s.mail.handled())
}

// Leave gives an empty seat up, unless a message of the gateway waits in it. A seat
// that was left refuses what the link still delivers. The link then treats it as the
// message of an unknown car. End the context of Run then.
func (s *Seat) Leave() (left bool) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.left || s.occupant.Load() != nil {
		return false
	}
	items, left := s.mail.closeUnheard()
	if left {
		s.left = true
		s.closePort(items)
	}
	return left
}

// AppendSettled notes in the journal that everything the car was sent has reached the
// broker. It is for a seat whose Run has returned after link.ErrSuspend.
func (s *Seat) AppendSettled() {
	if o := s.occupant.Load(); o != nil && !o.hasFailed() && s.opts.Journal != nil && !s.unsent {
		s.opts.Journal.Append(o.session.AppendSettled(nil))
	}
}

// closePort leaves the link. What will not be handled is acknowledged: the broker would
// hold back messages of other cars. That, and a disconnect notification that is queued,
// still goes out.
func (s *Seat) closePort(left []item) {
	for i := range left {
		if ack := left[i].delivery.Ack; ack != (link.Ack{}) {
			s.port.Acknowledge(ack)
		}
	}
	s.port.Close()
}
