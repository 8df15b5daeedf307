package broker

import (
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// An address may be wrong freePasswords times at once. Then its attempts have to
	// wait for their turn, one in passwordPace, also those with a right password:
	// otherwise a guess would be known to be right by being answered at once. An
	// attempt that would wait longer than passwordPatience is refused unseen.
	freePasswords    = 10
	passwordPace     = 500 * time.Millisecond
	passwordPatience = 5 * time.Second
	// forgiveAfter takes one wrong password off the account of an address, which is
	// never above worstAccount: an address that has stopped guessing is free again
	// after ten seconds.
	forgiveAfter = time.Second
	worstAccount = 2 * freePasswords
	throttleSize = 4096
)

// throttle slows down guessing of passwords, by address. Its size is fixed: addresses
// whose hash is the same share an account, and strangers cannot choose whose, as the
// seed is secret.
type throttle struct {
	mu       sync.Mutex
	seed     maphash.Seed // zero: not yet made
	accounts [throttleSize]account
}

// account is what is known of one address.
type account struct {
	wrong float64   // wrong passwords that are not forgiven
	at    time.Time // when wrong was right
	turn  time.Time // of the next attempt
}

// try checks a password with right, or says how long to wait before asking again with
// waited. Below zero: the attempt is refused unseen.
func (t *throttle) try(from net.Addr, now time.Time, waited bool, right func() bool) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.account(from)
	if !a.at.IsZero() {
		a.wrong = max(0, a.wrong-now.Sub(a.at).Seconds()/forgiveAfter.Seconds())
	}
	a.at = now
	if !waited && a.wrong >= freePasswords {
		if a.turn.Before(now) {
			a.turn = now
		}
		if a.turn.Sub(now) > passwordPatience {
			return -1
		}
		a.turn = a.turn.Add(passwordPace)
		return a.turn.Sub(now)
	}
	if !right() {
		a.wrong = min(a.wrong+1, worstAccount)
	}
	return 0
}

// account returns that of an address: of IPv6 the network, of which one machine has
// all addresses.
func (t *throttle) account(from net.Addr) *account {
	if t.seed == (maphash.Seed{}) {
		t.seed = maphash.MakeSeed()
	}
	key := netip.Prefix{}
	if tcp, ok := from.(*net.TCPAddr); ok {
		addr := tcp.AddrPort().Addr().Unmap().WithZone("")
		bits := addr.BitLen()
		if addr.Is6() {
			bits = 64
		}
		key, _ = addr.Prefix(bits) // the number of bits is right
	}
	return &t.accounts[maphash.Comparable(t.seed, key)%throttleSize]
}
