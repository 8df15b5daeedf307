package console

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/wire"
)

const (
	sniffKeepAlive  = 30 * time.Second
	sniffTimeout    = 10 * time.Second // to connect, and for the answer to the subscription
	sniffMaxPayload = 16 << 20         // bytes; longer messages are not shown
	sniffMaxPause   = 10 * time.Second // between two attempts to connect
)

// sniffer is the connection of Sniff.
type sniffer struct {
	opts       *SniffOptions
	messages   chan Sniffed
	news       chan error    // why a connection was lost
	subscribed chan struct{} // the broker has accepted the subscription
}

// errNoRetry is a refusal that the next attempt would meet again.
type errNoRetry struct{ error }

// Unwrap returns the refusal.
func (e errNoRetry) Unwrap() error { return e.error }

func (o *SniffOptions) car() string {
	if o.Car == "" {
		return "+"
	}
	return o.Car
}

// run listens until ctx ends, which is no error, or until connecting anew is of no use.
func (s *sniffer) run(ctx context.Context) error {
	pause := time.Second
	for first := true; ; {
		conn, err := s.dial(ctx)
		if err == nil {
			first, pause = false, time.Second
			err = s.listen(ctx, conn)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case first || errors.As(err, new(errNoRetry)):
			return fmt.Errorf("broker %s: %w", s.opts.Address, err)
		}
		select {
		case s.news <- err:
		default:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, sniffMaxPause)
	}
}

func (s *sniffer) dial(ctx context.Context) (*wire.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, sniffTimeout)
	defer cancel()
	return wire.Dial(ctx, wire.DialOptions{Address: s.opts.Address, TLS: s.opts.TLS, MaxPayload: sniffMaxPayload,
		Connect: wire.ConnectOptions{ClientID: "sniff" + rand.Text()[:16], Username: s.opts.Username, Password: s.opts.Password,
			KeepAlive: uint16(sniffKeepAlive / time.Second)}})
}

// listen subscribes and hands on what comes, until the connection is lost or ctx ends.
func (s *sniffer) listen(ctx context.Context, conn *wire.Conn) error {
	var pinging sync.WaitGroup
	defer pinging.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write(wire.AppendDisconnect(nil))
		_ = conn.Close()
	})()
	defer conn.Close()
	base := s.opts.Company + "/" + s.opts.car()
	filters := []string{base + fleet.TopicFromGateway, base + fleet.TopicFromServer, base + fleet.TopicDisconnect}
	if err := write(conn, wire.AppendSubscribe(nil, 1, 0, filters...)); err != nil {
		return err
	}
	pinging.Go(func() { ping(ctx, conn) })
	for waiting := true; ; {
		limit := 2 * sniffKeepAlive
		if waiting {
			limit = sniffTimeout
		}
		if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		var p wire.Packet
		if err := conn.Next(&p); err != nil {
			if waiting {
				err = fmt.Errorf("subscription of %s/%s: no answer: %w", s.opts.Company, s.opts.car(), err)
			}
			return err
		}
		switch p.Type {
		case wire.Suback:
			for i, code := range p.Codes {
				if code >= wire.SubackRefused && i < len(filters) {
					return errNoRetry{fmt.Errorf("subscription of %s/%s: refused for %s; the user may not read it", s.opts.Company, s.opts.car(), filters[i])}
				}
			}
			waiting = false
			select {
			case s.subscribed <- struct{}{}:
			default:
			}
		case wire.Publish:
			if err := s.handle(ctx, conn, &p); err != nil {
				return err
			}
		}
	}
}

// handle acknowledges one message and hands it on if it is wanted.
func (s *sniffer) handle(ctx context.Context, conn *wire.Conn, p *wire.Packet) error {
	if p.QoS > 0 { // not asked for, but a broker may
		if err := write(conn, wire.AppendPuback(nil, p.ID)); err != nil {
			return err
		}
	}
	m, ok := Decode(string(p.Topic), p.Payload)
	m.At, m.Retained = time.Now(), p.Retain
	if !ok || p.Oversized || !s.opts.wants(&m) {
		return nil
	}
	select { // a slow terminal makes us slow, never the broker's other clients
	case s.messages <- m:
	case <-ctx.Done():
	}
	return nil
}

func ping(ctx context.Context, conn *wire.Conn) {
	tick := time.NewTicker(sniffKeepAlive / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if write(conn, wire.AppendPingreq(nil)) != nil {
				return // the reader notices
			}
		}
	}
}

func write(conn *wire.Conn, b []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(sniffTimeout)); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}
