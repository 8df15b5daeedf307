// Package car runs cars. A Seat is the place of one car: its port on the link, its
// mailbox and what is known about it. Its occupant owns the session and the modules:
// one goroutine at a time works for it, performs the session's effects on the link and
// on the modules, and keeps its one timer. The package decides nothing about the
// protocol; that is package session.
//
// It may import session, link, module, protocol and logging; it knows no
// transport and no kind of module.
package car

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/logging"
	"external-server/internal/module"
	"external-server/internal/session"
	"external-server/internal/session/record"
)

// Defaults of Options and Limits.
const (
	defaultMailbox     = 4096
	mailboxBytes       = 16 << 20 // or one message of the largest size
	quickPayload       = 16 << 10 // of a message that is handled on the link's goroutine
	defaultStopTimeout = 3 * time.Second
	forsakeTimeout     = time.Second // for the modules of an occupant that met a defect
)

// Errors of Replace and Vacate.
var (
	// ErrLeft says that the seat was given up.
	ErrLeft = errors.New("the car is not served any more")
	// ErrBusy says that the occupant did not come to rest in time.
	ErrBusy = errors.New("the message in hand was not finished")
)

// ErrReload is the cause of the end of Run's context when not the whole server stops
// but this car is removed.
var ErrReload = errors.New("changed or removed by a reload")

// Binding is one module of a car. The order of a car's bindings is the order of
// its modules (CFG-13).
type Binding struct {
	Module   module.Module
	Instance module.Instance // owned by the Seat once Replace has returned without error
	// Lost are the statuses for it that an earlier process has answered and that were given
	// up.
	Lost uint64
	// Awaited: a status is answered when the module has taken it (RES-26).
	Awaited bool
}

// Occupant is what takes a seat.
type Occupant struct {
	// Session goes on where it is, with Modules as its modules; the seat owns it from
	// then on. Nil: a session that waits for a Connect.
	Session *session.Session
	// Known is what the journal says of the car; nil: nothing. It is for the first
	// occupant of a seat, and for one that follows a defect.
	Known   *record.Resumption
	Modules []Binding
}

// Journal keeps what cars have decided, so that another process can go on with their
// sessions. What is appended is written before anything that the link sends later.
type Journal interface {
	// Append copies the records. It does not block.
	Append(records ...[]byte)
	// AppendAt does so for records that build on those before, unless the journal has
	// begun anew since the epoch. It returns the epoch that it is in; the first is 0.
	AppendAt(epoch uint64, records ...[]byte) (now uint64, ok bool)
	// Flush writes what was appended; its error was told elsewhere.
	Flush() error
}

// Carrier hands on what another server needs to go on with sessions.
type Carrier interface {
	// Put takes the record that AppendCarried of the session returns now; an empty one says that no
	// session goes on. It is called from the goroutine of the car, before anything leaves that the record
	// describes. It must not block, and must keep nothing of record.
	Put(car fleet.CarID, record []byte)
}

// Options of New.
type Options struct {
	ID     fleet.CarID
	Limits Limits
	// MailboxSize bounds the messages of the gateway that wait for the car's
	// goroutine; zero means 4096.
	MailboxSize int
	// Observer is told what happens to the car; nil: there is none.
	Observer Observer
	// Journal gets the records of the car; nil: its sessions end with the process.
	Journal Journal
	// Carrier gets the record of the session for other servers, which go on with it should
	// this one fail; nil: there are none. It needs a Journal.
	Carrier Carrier
	// Permit is asked before the modules are called; nil: they always may be.
	Permit module.Permit
	// Down is for how long the car had been out of reach when the seat was made.
	Down time.Duration
	// OwnBroker says that the broker ends and begins with this process, and that the
	// process before has handled everything that it had: when the link is up for the
	// first time nothing is missing, although the broker has kept nothing.
	OwnBroker bool
	// Alone is called before a status of the process before is handed to a module; the
	// function that it returns, if any, is called after that. The owner can wait in Alone, so
	// that one such status at a time is handed over. Nil: they are all handed over at once.
	Alone func() (done func())
	// Suspending tells that the process ends for another one to go on: the loss of the
	// link ends no session then. Nil: it never does.
	Suspending func() bool
	Logger     *slog.Logger
}

// Seat is the place of one car. It implements link.Receiver. From Attach until it is
// left, it hears everything the gateway sends: what comes while one occupant follows
// another, or while there is none, waits in the mailbox for the next one. A Connect
// that is not heard would cost the gateway 15 s.
type Seat struct {
	opts  Options
	born  time.Time // with a monotonic reading
	log   *slog.Logger
	limit logging.Limiter
	mail  *mailbox
	port  link.Port

	payload  atomic.Int64 // largest message, bytes
	downs    atomic.Int64 // losses of the link that were told
	ownUp    atomic.Bool  // see Options.OwnBroker
	stop     atomic.Int64 // time.Duration, see Limits.Stop
	counters counters
	occupant atomic.Pointer[occupant] // nil: there is none
	failed   chan struct{}            // capacity 1: the occupant has met a defect

	// Of the working goroutine, see mailbox.
	started          time.Time           // of the current session
	linkReason       error               // of the last loss of the link
	downsHandled     int64               // losses of the link that the occupants know of
	epoch            uint64              // of the journal that has the whole session
	later            map[uint32]link.Ack // of statuses whose answers are held, by counter
	unsent           bool                // what should have left was not sent, see publish
	failedAt         time.Time           // when the last defect was met
	reachedAt        time.Time           // until when the broker was reached, see Options.Down
	withheld         map[uint32]link.Ack // of statuses that wait for their answers, see withhold
	lifeLines        bucket              // see lifeLine
	lifeLinesLeftOut int

	turn     sync.Mutex // held while the occupant changes; guards what follows
	left     bool
	limits   Limits           // in force
	session  *session.Session // of the last occupant that ended well
	previous *occupant        // the last one, whose modules may still be closing
	ending   sync.WaitGroup   // of occupants; Run waits for it

	mu      sync.Mutex
	view    Snapshot
	closing []*boundModule // of occupants that were replaced, oldest first, see whole
}

// New returns an empty seat that is not attached to a link.
func New(opts Options) (*Seat, error) {
	if opts.Logger == nil {
		return nil, errors.New("car: a logger is needed")
	}
	s := &Seat{
		opts:   opts,
		born:   time.Now(),
		log:    opts.Logger.With(logging.ComponentKey, logging.ComponentCar, "car", opts.ID.Car),
		mail:   newMailbox(cmp.Or(max(0, opts.MailboxSize), defaultMailbox), max(mailboxBytes, opts.Limits.Payload)),
		failed: make(chan struct{}, 1),
		view:   Snapshot{ID: opts.ID, Ended: make(map[session.Reason]uint64)},
	}
	s.reachedAt = s.born.Add(-opts.Down)
	s.setLimits(opts.Limits)
	return s, nil
}

// ID names the car.
func (s *Seat) ID() fleet.CarID { return s.opts.ID }

// Attach connects the seat to the link; call it once, before anything else.
func (s *Seat) Attach(l link.Link) error {
	port, err := l.Attach(s.opts.ID, s)
	if err != nil {
		return fmt.Errorf("car %v: %w", s.opts.ID, err)
	}
	s.port = port
	return nil
}

// Replace puts another occupant into the seat; the one before it, if any, handles what
// it has in hand. Its session goes on with the modules of the new one; a connect
// sequence ends, and its gateway is told to connect anew. When Replace returns, the new
// occupant serves the gateway. The modules
// of the old one have up to Limits.Stop to take what was accepted for them; a module
// of the same number is called for the new one after that, so that it hears everything
// in order. ended waits for this end, until its ctx ends, and returns what could not be
// delivered or closed.
//
// ctx bounds the wait for the message in hand. On error nothing has changed and the
// instances stay the caller's.
func (s *Seat) Replace(ctx context.Context, next Occupant) (ended func(context.Context) error, err error) {
	return s.change(ctx, &next)
}

// Vacate ends the occupant as Replace does and leaves the seat empty: what the gateway
// sends waits for Replace, or keeps Leave from leaving.
func (s *Seat) Vacate(ctx context.Context) (ended func(context.Context) error, err error) {
	return s.change(ctx, nil)
}

// Occupied tells whether there is an occupant.
func (s *Seat) Occupied() bool { return s.occupant.Load() != nil }

func (s *Seat) change(ctx context.Context, next *Occupant) (ended func(context.Context) error, err error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	switch {
	case s.left:
		return nil, ErrLeft
	case s.port == nil:
		return nil, errors.New("car: Attach must be called before Replace")
	}
	old, tell, greeted := s.occupant.Load(), false, false
	ended = func(context.Context) error { return nil }
	if old != nil {
		if err := s.rest(ctx, old); err != nil {
			if s.mail.resume() {
				go s.work(nil, false)
			}
			return nil, err
		}
		kind := session.EventReload
		if next != nil {
			kind = session.EventUnbind
		}
		tell, greeted = old.conclude(kind)
		tell = tell && !greeted
		s.session = old.session
		if old.hasFailed() { // what a defect has left of it is not to be trusted
			old.forsake()
			s.session = nil
		}
		s.previous = old
		s.closes(old.modules)
	}
	if next == nil {
		s.occupant.Store(nil)
	} else {
		s.seat(next, greeted)
	}
	// The gateway connects anew at once, so it is told when the next occupant is there,
	// and before that one says anything.
	if tell {
		s.port.NotifyDisconnect()
	}
	if next != nil && s.mail.open() {
		go s.work(nil, false)
	}
	if old != nil {
		ended = s.end(ctx, old)
	}
	return ended, nil
}

// seat makes next the occupant; its work may begin. greeted: a Connect waits for it.
// turn is held.
func (s *Seat) seat(next *Occupant, greeted bool) {
	kept := cmp.Or(next.Session, s.session)
	o := newOccupant(s, kept, next.Modules)
	s.session = nil
	if kept == nil {
		s.letGo()
	}
	o.start(s.previous)
	s.occupant.Store(o)
	switch {
	case kept != nil:
		o.begin(session.Event{Kind: session.EventRebind, Greeted: greeted})
	case next.Known != nil:
		o.begin(session.Event{Kind: session.EventResume, Resume: next.Known})
		if s.linkUp() { // after a defect: nothing was missed
			o.begin(session.Event{Kind: session.EventLinkUp, Kept: true})
			s.mail.put(item{kind: session.EventBacklogRead}) // behind what was given back
		}
	}
	o.show()
	o.arm()
}

func (s *Seat) linkUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.LinkUp
}

// rest waits until the occupant is at rest: the goroutine that works for it has
// finished what it has in hand, or met a defect, and none begins.
func (s *Seat) rest(ctx context.Context, o *occupant) error {
	idle := s.mail.halt()
	select {
	case <-idle:
		return nil
	case <-o.broken:
		return nil
	default:
	}
	select {
	case <-idle:
	case <-o.broken:
	case <-ctx.Done():
		return fmt.Errorf("car %s: %w: %w", s.opts.ID.Car, ErrBusy, context.Cause(ctx))
	}
	return nil
}

// end releases an occupant in a goroutine of its own, for which Run waits; turn is
// held.
func (s *Seat) end(ctx context.Context, o *occupant) (ended func(context.Context) error) {
	done := make(chan struct{})
	var err error
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(s.stop.Load()))
	s.ending.Go(func() {
		defer close(done)
		defer cancel()
		err = o.release(bound, false)
	})
	return func(ctx context.Context) error {
		select {
		case <-done:
			return err
		case <-ctx.Done():
			return fmt.Errorf("car %s: its former modules have not ended yet: %w", s.opts.ID.Car, context.Cause(ctx))
		}
	}
}

// Run watches over the seat until ctx ends, then leaves it: it ends the session
// (CLI-24) unless the cause is link.ErrSuspend, with which the next process goes on with
// it and the link is down already, or link.ErrFenced, with which nothing is sent and nothing that
// waits is given to the modules any more; it lets the modules take what was accepted and closes their instances, all
// within Limits.Stop, tells the gateway and closes the port. It returns what could not
// be delivered or closed in time.
//
// A defect that the occupant meets, wherever it shows, makes Run return a *Defect. The
// seat is empty then, its modules are closed; call Run again, and Replace.
func (s *Seat) Run(ctx context.Context) error {
	if s.port == nil {
		return errors.New("car: Attach must be called before Run")
	}
	for {
		select {
		case <-ctx.Done():
			return s.leave(ctx)
		case <-s.failed:
			if d := s.afterDefect(ctx); d != nil {
				return d
			}
		}
	}
}

// afterDefect empties the seat if its occupant has met a defect.
func (s *Seat) afterDefect(ctx context.Context) *Defect {
	s.turn.Lock()
	o := s.occupant.Load()
	if o == nil || !o.hasFailed() { // replaced meanwhile
		s.turn.Unlock()
		return nil
	}
	s.occupant.Store(nil)
	s.previous, s.session = o, nil
	s.downsHandled = s.downs.Load() // what it had in hand is gone
	o.forsake()
	s.turn.Unlock()
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), forsakeTimeout)
	defer cancel()
	if err := o.release(bound, s.opts.Journal != nil && !o.defect.Again); err != nil {
		s.log.Warn("what the failed car held did not end cleanly", "error", err)
	}
	return o.defect
}
