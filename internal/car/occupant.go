package car

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// occupant is the actor of a seat: a session and the modules it is with. The seat's
// mailbox says which goroutine works for it; another one may touch it only at rest
// (see Seat.rest).
type occupant struct {
	*Seat
	session *session.Session
	modules []*boundModule
	decoder protocol.Decoder

	options atomic.Pointer[session.Options] // of Configure, to be applied by the working goroutine
	defect  *Defect                         // set before broken is closed
	broken  chan struct{}                   // closed by a defect

	// Of the working goroutine.
	now       time.Time // of the current step
	ack       link.Ack  // of the message that is being handled
	answering uint32    // its counter
	answered  bool      // its answer was published
	event     *Event    // see tell; nil without observer
	onLink    bool      // see work
	timer     *time.Timer
	armed     time.Time
	spare     mail
	first     item          // in hand, without payload: none
	rest      []item        // in hand and behind it
	version   uint64        // of the session, as the carrier has it
	record    []byte        // for the carrier
	batch     [1][]byte     // an argument of the journal that needs no memory
	unfetched []int32       // modules with fetched commands that found no room
	phase     session.Phase // as in view

	concluding bool // see conclude
	tellLast   bool // see perform
}

func newOccupant(s *Seat, sess *session.Session, modules []Binding) *occupant {
	o := &occupant{Seat: s, session: sess, broken: make(chan struct{}), version: ^uint64(0)}
	if s.opts.Observer != nil {
		o.event = new(Event)
	}
	for _, b := range modules {
		o.modules = append(o.modules, s.bind(b))
	}
	if sess == nil {
		o.session = session.New(s.sessionOptions(), moduleView{o})
		if s.opts.Journal != nil {
			o.session.Durable(s.opts.ID.String())
		}
	} else {
		sess.UseModules(moduleView{o})
		sess.Configure(s.sessionOptions())
		o.session = sess
	}
	for _, m := range o.modules {
		m.session = o.session
	}
	return o
}

// start begins the calls of the modules. One that the previous occupant has too is
// called when that one's calls have ended.
func (o *occupant) start(previous *occupant) {
	for _, m := range o.modules {
		var before *boundModule
		if previous != nil {
			before = previous.find(m.number)
		}
		if before == nil || before.hasClosed() {
			m.worker.Start()
			close(m.started)
			continue
		}
		o.ending.Go(func() {
			<-before.closed
			m.worker.Start()
			close(m.started)
		})
	}
}

// show makes the view that of the session.
func (o *occupant) show() {
	o.phase = o.session.Phase()
	o.mu.Lock()
	defer o.mu.Unlock()
	if id := o.session.ID(); id != o.view.SessionID {
		o.view.SessionID, o.view.Since = id, time.Now()
	}
	o.view.Phase, o.view.Devices = o.phase, o.session.Devices()
}

// begin lets a new occupant handle the event with which it takes its seat.
func (o *occupant) begin(ev session.Event) {
	defer o.caught()
	o.step(time.Now(), ev)
}

func (o *occupant) stopTimer() {
	if o.timer != nil {
		o.timer.Stop()
	}
}

// conclude lets an occupant at rest handle what waits for it, up to the next Connect,
// and ends its session with the event. due says that the gateway has to be told of
// it; greeted, that a Connect waits: the gateway has given up the session before, and
// a notification of its end would fail this attempt (GW-20).
func (o *occupant) conclude(kind session.EventKind) (due, greeted bool) {
	o.stopTimer()
	if o.hasFailed() {
		return false, false
	}
	defer o.caught()
	items, greeted := o.mail.takeUntil(o.isConnect)
	o.handleMail(mail{items: items})
	o.concluding = true
	o.step(time.Now(), session.Event{Kind: kind})
	return o.tellLast, greeted
}

func (o *occupant) isConnect(it *item) bool {
	if it.kind != session.EventMessage {
		return false
	}
	m, err := o.decoder.Client(it.payload)
	return err == nil && m.Kind == fleet.ClientConnect
}

func (o *occupant) hasFailed() bool {
	select {
	case <-o.broken:
		return true
	default:
		return false
	}
}

// forsake tells the modules of an occupant that met a defect that the devices are
// gone.
func (o *occupant) forsake() {
	o.mu.Lock()
	devices := o.view.Devices
	o.view.Devices, o.view.SessionID, o.view.Phase, o.view.Since = nil, "", session.PhaseWaiting, time.Now()
	o.mu.Unlock()
	for _, d := range devices {
		if m := o.find(d.Module); m != nil {
			m.worker.DeviceDisconnected(fleet.DisconnectTimeout, d.ForModule())
		}
	}
}

// release lets the modules have what was accepted and closes them; call it once. What is
// left stays for another occupant that goes on from the journal, or is lost.
func (o *occupant) release(ctx context.Context, goesOn bool) error {
	errs := make([]error, len(o.modules))
	var closing sync.WaitGroup
	for i, m := range o.modules {
		closing.Go(func() {
			defer close(m.closed)
			select {
			case <-m.started:
			case <-ctx.Done():
			}
			m.begin()
			end := m.worker.Close
			if goesOn {
				end = m.worker.Suspend
			}
			if err := end(ctx); err != nil {
				errs[i] = fmt.Errorf("car %s: module %d: %w", o.opts.ID.Car, m.number, err)
			}
			o.hasEnded(m)
		})
	}
	closing.Wait()
	return errors.Join(errs...)
}
