package broker

import (
	"net"
	"sync"
)

// maxOwn bounds the connections that were announced and have not introduced themselves.
const maxOwn = 128

// own are connections that the process itself has made. Wrong passwords from its
// address must not slow them down: every program of this machine can send those.
type own struct {
	mu    sync.Mutex
	peers map[string]struct{}
}

// Own announces a connection of this process, by its local address, before anything is
// sent over it: guesses from the same address do not make it wait. It still needs the
// right password. It may be called at any time.
func (b *Broker) Own(local net.Addr) {
	b.own.mu.Lock()
	defer b.own.mu.Unlock()
	if b.own.peers == nil || len(b.own.peers) >= maxOwn { // full of those that never came
		b.own.peers = make(map[string]struct{})
	}
	b.own.peers[local.String()] = struct{}{}
}

// claim tells whether the peer was announced, once.
func (o *own) claim(peer net.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.peers[peer.String()]
	delete(o.peers, peer.String())
	return ok
}
