package faults

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy is a network between two programs that a test can spoil. Faults hold for both
// directions unless they say otherwise.
type proxy struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed when a fault changes
	faults  network
	conns   map[net.Conn]bool
	closed  bool
}

// network is what is wrong with it.
type network struct {
	rate    int           // bytes per second and direction; 0: any
	latency time.Duration // added to every piece
	silent  bool          // connections stay open, nothing passes, no end of a connection either
	mute    bool          // the same for what the program says that has connected
	deaf    bool          // the same for what it is told
	refuse  bool          // new connections are closed at once
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, changed: make(chan struct{}), conns: make(map[net.Conn]bool)}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		close(p.changed)
		p.mu.Unlock()
		_ = l.Close()
		p.cut()
		p.work.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// set replaces the faults, also of connections that exist.
func (p *proxy) set(n network) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = n
	if !p.closed {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// cut resets every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	clear(p.conns)
}

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refuse := p.faults.refuse || p.closed
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
		closed := p.closed
		p.mu.Unlock()
		if closed {
			p.cut()
			return
		}
		p.work.Go(func() { p.carry(in, out, true) })
		p.work.Go(func() { p.carry(out, in, false) })
	}
}

// carry moves bytes one way until either side ends; up is the way from the program that
// has connected.
func (p *proxy) carry(from, to net.Conn, up bool) {
	defer p.end(from, to)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		for rest := buffer[:n]; len(rest) > 0; {
			piece, ok := p.pass(len(rest), up)
			if !ok {
				return
			}
			if _, err := to.Write(rest[:piece]); err != nil {
				return
			}
			rest = rest[piece:]
		}
		if err != nil && !p.open(up) {
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
func (p *proxy) end(a, b net.Conn) {
	p.mu.Lock()
	delete(p.conns, a)
	delete(p.conns, b)
	p.mu.Unlock()
	_ = a.Close()
	_ = b.Close()
}

// open waits until something passes in that direction and reports whether it ever will.
func (p *proxy) open(up bool) bool {
	for {
		p.mu.Lock()
		f, changed, closed := p.faults, p.changed, p.closed
		p.mu.Unlock()
		switch {
		case closed:
			return false
		case f.silent, f.mute && up, f.deaf && !up:
			<-changed
		default:
			return true
		}
	}
}

// pass waits until bytes may go and tells how many.
func (p *proxy) pass(n int, up bool) (int, bool) {
	for {
		if !p.open(up) {
			return 0, false
		}
		p.mu.Lock()
		f, changed := p.faults, p.changed
		p.mu.Unlock()
		pause := f.latency
		if f.rate > 0 { // in slices of 50 ms, one byte at least
			n = min(n, max(1, f.rate/20))
			pause += time.Duration(n) * time.Second / time.Duration(f.rate)
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
