package broker

import (
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testneed"
)

func tcp(address string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(address), Port: 1} }

func wrong() bool { return false }
func right() bool { return true }

// After ten wrong passwords an address gets two attempts in a second, right ones
// too; another address does not notice, and ten seconds without any make it free.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var th throttle
		guesser, other := tcp("192.0.2.1"), tcp("192.0.2.2")
		for th.account(guesser) == th.account(other) {
			th = throttle{}
		}
		try := func(from net.Addr, check func() bool) (time.Duration, bool) {
			begin := time.Now()
			wait := th.try(from, begin, false, check)
			if wait < 0 {
				return 0, false
			}
			time.Sleep(wait)
			if wait > 0 {
				th.try(from, time.Now(), true, check)
			}
			return time.Since(begin), true
		}
		for range freePasswords {
			if d, ok := try(guesser, wrong); d != 0 || !ok {
				t.Fatalf("an early wrong password waits %v", d)
			}
		}
		for range 1000 {
			if d, ok := try(guesser, wrong); d != passwordPace || !ok {
				t.Fatalf("a later wrong password waits %v", d)
			}
		}
		if d, _ := try(guesser, right); d != passwordPace {
			t.Errorf("a right password waits %v", d)
		}
		if d, _ := try(other, right); d != 0 {
			t.Errorf("another address waits %v", d)
		}
		// Many at once: most are refused unseen.
		seen := 0
		for range 10_000 {
			if th.try(guesser, time.Now(), false, wrong) >= 0 {
				seen++
			}
		}
		if most := int(passwordPatience/passwordPace) + 1; seen > most {
			t.Errorf("%d attempts at once wait, expected %d", seen, most)
		}
		time.Sleep(worstAccount * forgiveAfter)
		if d, ok := try(guesser, right); d != 0 || !ok {
			t.Errorf("after a pause a right password waits %v", d)
		}
	})
}

// Addresses of one IPv6 network are one.
func TestThrottleOfNetworks(t *testing.T) {
	var th throttle
	if th.account(tcp("2001:db8::1")) != th.account(tcp("2001:db8::ffff:1")) {
		t.Error("addresses of one network have two accounts")
	}
	if th.account(tcp("::ffff:192.0.2.1")) != th.account(tcp("192.0.2.1")) {
		t.Error("an IPv4 address has two accounts")
	}
}

// A connection of the server itself does not wait because somebody on its machine has
// guessed; it needs the right password all the same.
func TestGuessesDoNotDelayTheServer(t *testing.T) {
	b, _ := startInside(t, Options{Users: []User{{Name: "server", Password: "secret"}}}, nil)
	b.throttle.mu.Lock()
	a := b.throttle.account(tcp("127.0.0.1"))
	a.wrong, a.at, a.turn = worstAccount, time.Now(), time.Now().Add(time.Hour)
	b.throttle.mu.Unlock()
	dial := func(own bool, password string) error {
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if own {
			b.Own(c.LocalAddr())
		}
		if _, err := c.Write(wire.AppendConnect(nil, wire.ConnectOptions{ClientID: "link", KeepAlive: 60, Username: "server", Password: password})); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 4)
		if _, err := io.ReadFull(c, answer); err != nil {
			return err
		}
		if answer[3] != 0 {
			return fmt.Errorf("CONNACK %d", answer[3])
		}
		return nil
	}
	if err := dial(true, "secret"); err != nil {
		t.Errorf("the server's own connection: %v", err)
	}
	if err := dial(true, "guess"); err == nil {
		t.Error("the server's own connection needs no password")
	}
	if err := dial(false, "secret"); err == nil {
		t.Error("a connection that was not announced does not wait")
	}
}

// Guessing over many connections is not faster than over one.
func TestGuessingIsSlow(t *testing.T) {
	testneed.Time(t)
	b, _ := startInside(t, Options{Users: []User{{Name: "server", Password: "secret"}}}, nil)
	answers := make(chan bool)
	const guesses = 200
	for range guesses {
		go func() {
			p, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String(), Username: "server", Password: "guess"})
			if err == nil {
				p.Conn.Close()
			}
			answers <- err == nil
		}()
	}
	for range guesses {
		if <-answers {
			t.Fatal("a wrong password was taken")
		}
	}
	b.throttle.mu.Lock()
	account := *b.throttle.account(tcp("127.0.0.1"))
	b.throttle.mu.Unlock()
	if account.wrong < freePasswords/2 || account.turn.IsZero() {
		t.Errorf("%.1f wrong passwords are remembered, the next turn is %v", account.wrong, account.turn)
	}
}
