// Package pace makes a busy connection to the broker be read less often.
//
// A broker such as mosquitto writes each message by itself. Woken by each, the reader would
// read, answer and wait once per message, which is most of what a status costs. When many
// cars report fast, the reader therefore pauses before it reads on. The pause is short
// beside the time between two messages of a car. The answers to what was read, and the calls
// of the modules, do not wait for it.
package pace

import (
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// Pacing is what the readers of one link share. The zero value is not usable, see New.
type Pacing struct {
	// Now and Sleep are replaced in tests only, before the first reader.
	Now     func() time.Time
	Sleep   func(time.Duration)
	resting atomic.Int32 // readers that pause
}

// New returns a Pacing for readers that pause in real time.
func New() *Pacing { return &Pacing{Now: time.Now, Sleep: threadSleep} }

// Reader reads a connection. All methods are for the one goroutine that reads.
type Reader struct {
	pacing  *Pacing
	nc      net.Conn
	socket  *socket // nil: it cannot be kept still, and the reader never pauses
	pacer   pacer
	resting bool // one of pacing.resting
}

// Reader returns the reader of a connection. Over TLS it never pauses, because it
// would get one message per pause.
func (p *Pacing) Reader(nc net.Conn) *Reader {
	return &Reader{pacing: p, nc: nc, socket: newSocket(nc)}
}

// Heard counts a message of a car. window is where the car remembers in which window of
// time it was heard last; the reader alone uses it.
func (r *Reader) Heard(window *uint32) { r.pacer.heard(window) }

// Rest pauses if that is worth it, for less than a millisecond. It is called when all is
// handled that was read.
func (r *Reader) Rest() {
	if r.socket == nil {
		return
	}
	d := r.pacer.next(r.pacing.Now())
	if d > 0 && !r.mayRest() {
		r.pacer.refuse()
		d = 0
	}
	if d == 0 {
		r.Stop()
		return
	}
	r.socket.begin()
	r.pacing.Sleep(d)
}

// mayRest tells whether a processor can be spared. A reader keeps its own while it pauses:
// giving it back and asking for another one would cost more than the pause saves.
func (r *Reader) mayRest() bool {
	if r.resting {
		return true
	}
	if int(r.pacing.resting.Add(1)) > runtime.GOMAXPROCS(0)/2 {
		r.pacing.resting.Add(-1)
		return false
	}
	r.resting = true
	return true
}

// Stop ends what Rest has begun. It is to be called when nothing more is read; Rest
// may be called again.
func (r *Reader) Stop() {
	if r.resting {
		r.resting = false
		r.pacing.resting.Add(-1)
		r.socket.end()
	}
}

// Read implements io.Reader. It returns what has come, however little, and waits when there is
// nothing.
func (r *Reader) Read(b []byte) (int, error) {
	if n, err, done := r.socket.read(b); done {
		return n, err
	}
	return r.nc.Read(b)
}
