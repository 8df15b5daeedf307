package brokertest

import (
	"net"
	"sync"
	"testing"
)

// Relay is a network between clients and a broker that can swallow what passes, in either
// direction, and closes nothing. What it has swallowed arrives when it passes again.
type Relay struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu       sync.Mutex
	changed  sync.Cond
	up, down bool // held: from the clients, to them
	ended    bool
	conns    map[net.Conn]bool
}

// NewRelay starts a relay to the address, which ends with the test.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{listener: listener, target: target, conns: make(map[net.Conn]bool)}
	r.changed.L = &r.mu
	r.work.Go(r.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		r.mu.Lock()
		r.ended = true
		for c := range r.conns {
			_ = c.Close()
		}
		r.changed.Broadcast()
		r.mu.Unlock()
		r.work.Wait()
	})
	return r
}

// Address is where clients connect to.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// Port is that of the Address.
func (r *Relay) Port() int { return r.listener.Addr().(*net.TCPAddr).Port }

// Hold says what is swallowed from now on: what clients send (up), what they are sent (down).
func (r *Relay) Hold(up, down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up, r.down = up, down
	r.changed.Broadcast()
}

func (r *Relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		if !r.keep(in, out) {
			return
		}
		r.work.Go(func() { r.carry(in, out, &r.up) })
		r.work.Go(func() { r.carry(out, in, &r.down) })
	}
}

// keep notes a connection that is made. False: the test has ended.
func (r *Relay) keep(in, out net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		_, _ = in.Close(), out.Close()
		return false
	}
	r.conns[in], r.conns[out] = true, true
	return true
}

// carry moves bytes one way until either side ends. The end is swallowed, too.
func (r *Relay) carry(from, to net.Conn, held *bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		r.mu.Lock()
		for *held && !r.ended {
			r.changed.Wait()
		}
		r.mu.Unlock()
		if n > 0 {
			if _, werr := to.Write(buffer[:n]); err == nil {
				err = werr
			}
		}
		if err != nil {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, from)
	delete(r.conns, to)
	_, _ = from.Close(), to.Close()
}
