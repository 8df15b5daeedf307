package etcd_test

import (
	"net"
	"sync"
	"testing"
)

// proxy passes connections on, until it is cut: then nothing passes, and no connection
// ends, as behind a switch that has failed.
type proxy struct {
	t      *testing.T
	target string
	listen net.Listener
	wait   sync.WaitGroup

	mu    sync.Mutex
	open  bool
	moved *sync.Cond // open has changed, or over
	over  bool
	conns []net.Conn
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, target: target, listen: l, open: true}
	p.moved = sync.NewCond(&p.mu)
	p.wait.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) address() string { return p.listen.Addr().String() }

func (p *proxy) cut()  { p.set(false) }
func (p *proxy) heal() { p.set(true) }

func (p *proxy) set(open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = open
	p.moved.Broadcast()
}

func (p *proxy) close() {
	p.mu.Lock()
	p.over = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.moved.Broadcast()
	p.mu.Unlock()
	_ = p.listen.Close()
	p.wait.Wait()
}

// pass waits until something may pass.
func (p *proxy) pass() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.open && !p.over {
		p.moved.Wait()
	}
	return !p.over
}

func (p *proxy) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, c)
	if p.over {
		_ = c.Close()
	}
}

func (p *proxy) accept() {
	for {
		in, err := p.listen.Accept()
		if err != nil {
			return
		}
		p.keep(in)
		p.wait.Go(func() {
			if !p.pass() {
				return
			}
			out, err := net.Dial("tcp", p.target)
			if err != nil {
				_ = in.Close()
				return
			}
			p.keep(out)
			p.wait.Go(func() { p.copy(in, out) })
			p.copy(out, in)
		})
	}
}

func (p *proxy) copy(to, from net.Conn) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !p.pass() {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
