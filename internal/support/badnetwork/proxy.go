// Package badnetwork is a network between two programs that a test can spoil: slow, silent, deaf
// on one side, cut.
//
// It may import nothing of the project, and nothing but tests may import it.
package badnetwork

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a listener that passes connections on to another program. Faults hold for both
// directions unless they say otherwise.
type Proxy struct {
	listener net.Listener
	target   string
	// tap returns what sees the bytes of a new connection, in both directions, before they go
	// on; nil: none.
	tap  func() (up, down func([]byte))
	work sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed when a fault changes
	faults  Faults
	conns   map[net.Conn]bool
	age     int // grows with each Lose
	closed  bool
}

// Faults are what is wrong with a network; the zero value is a good one.
type Faults struct {
	Rate    int           // bytes per second and direction; 0: any
	Latency time.Duration // added to every piece
	Silent  bool          // connections stay open, nothing passes, no end of a connection either
	Mute    bool          // the same for what the program says that has connected
	Deaf    bool          // the same for what it is told
	Refuse  bool          // new connections are closed at once
}

// New returns a network in front of the address target, until the test ends.
func New(t testing.TB, target string) *Proxy {
	t.Helper()
	return Tap(t, target, nil)
}

// Tap is New for a network that is listened to: for each connection, tap returns what sees its
// bytes, from the program that has connected and to it, before they go on.
func Tap(t testing.TB, target string, tap func() (up, down func([]byte))) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, tap: tap, changed: make(chan struct{}), conns: make(map[net.Conn]bool)}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		close(p.changed)
		p.mu.Unlock()
		_ = l.Close()
		p.Cut()
		p.work.Wait()
	})
	return p
}

// Address is host:port, where programs connect.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Port is that of Address.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Set replaces the faults, also of connections that exist.
func (p *Proxy) Set(n Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = n
	if !p.closed {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// Cut resets every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	clear(p.conns)
}

// Lose loses the connections that there are without a word, as a firewall does that has forgotten them:
// nothing passes over them any more. New ones are as Set says.
func (p *Proxy) Lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age++
	if !p.closed {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

func (p *Proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refuse := p.faults.Refuse || p.closed
		p.mu.Unlock()
		if refuse {
			_ = in.Close()
			continue
		}
		out, err := net.DialTimeout("tcp", p.target, 5*time.Second)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		closed, age := p.closed, p.age
		p.mu.Unlock()
		if closed {
			p.Cut()
			return
		}
		seeUp, seeDown := func([]byte) {}, func([]byte) {}
		if p.tap != nil {
			seeUp, seeDown = p.tap()
		}
		p.work.Go(func() { p.carry(in, out, way{true, age}, seeUp) })
		p.work.Go(func() { p.carry(out, in, way{false, age}, seeDown) })
	}
}

// way is one direction of a connection.
type way struct {
	up  bool // from the program that has connected
	age int  // of the connection
}

// carry moves bytes one way until either side ends.
func (p *Proxy) carry(from, to net.Conn, w way, see func([]byte)) {
	defer p.end(from, to)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		see(buffer[:n])
		for rest := buffer[:n]; len(rest) > 0; {
			piece, ok := p.pass(len(rest), w)
			if !ok {
				return
			}
			if _, err := to.Write(rest[:piece]); err != nil {
				return
			}
			rest = rest[piece:]
		}
		if err != nil && !p.open(w) {
			return
		}
		if err == io.EOF {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			return
		}
	}
}

// end closes both sides; a half-closed connection is of no use to MQTT.
func (p *Proxy) end(a, b net.Conn) {
	p.mu.Lock()
	delete(p.conns, a)
	delete(p.conns, b)
	p.mu.Unlock()
	_ = a.Close()
	_ = b.Close()
}

// open waits until something passes in that direction and reports whether it ever will.
func (p *Proxy) open(w way) bool {
	for {
		p.mu.Lock()
		f, changed, closed, lost := p.faults, p.changed, p.closed, p.age > w.age
		p.mu.Unlock()
		switch {
		case closed:
			return false
		case lost, f.Silent, f.Mute && w.up, f.Deaf && !w.up:
			<-changed
		default:
			return true
		}
	}
}

// pass waits until bytes may go and tells how many.
func (p *Proxy) pass(n int, w way) (int, bool) {
	for {
		if !p.open(w) {
			return 0, false
		}
		p.mu.Lock()
		f, changed := p.faults, p.changed
		p.mu.Unlock()
		pause := f.Latency
		if f.Rate > 0 { // in slices of 50 ms, one byte at least
			n = min(n, max(1, f.Rate/20))
			pause += time.Duration(n) * time.Second / time.Duration(f.Rate)
		}
		if pause == 0 {
			return n, true
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			return n, true
		case <-changed:
			timer.Stop()
		}
	}
}
