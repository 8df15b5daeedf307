package gateway

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
)

// maxInFlight is the number of unacknowledged messages of a gateway (GW-8).
const maxInFlight = 20

// own is the connection of one gateway that has its broker connection for itself,
// as in a car: a fresh client for every attempt, client id <company>/<car> (CONN-9),
// reconnecting by itself without subscribing again (GW-8, GW-55).
type own struct {
	broker  Broker
	car     fleet.CarID
	topics  topics
	timeout time.Duration
	receive func(gen uint64, topic string, payload []byte)
	report  func(gen uint64, err error)

	// Opening and closing take time; one does not start before the other is done,
	// or the broker would see two clients with one id.
	tail chan struct{}
	jobs sync.WaitGroup

	gen  atomic.Uint64 // of the connection that is wanted; 0: none
	mu   sync.Mutex
	conn *stream
}

func (o *own) enqueue(job func()) {
	previous, done := o.tail, make(chan struct{})
	o.tail = done
	o.jobs.Go(func() {
		defer close(done)
		if previous != nil {
			<-previous
		}
		job()
	})
}

// open connects and subscribes, then reports.
func (o *own) open(gen uint64) {
	o.gen.Store(gen)
	o.enqueue(func() {
		if o.gen.Load() != gen {
			return
		}
		conn, err := o.connect(gen)
		if err == nil {
			o.mu.Lock()
			if o.gen.Load() == gen {
				o.conn = conn
			} else {
				defer conn.close()
			}
			o.mu.Unlock()
		}
		o.report(gen, err)
	})
}

// limits are those of the client in a car (GW-8): it waits a second before it
// connects again, then longer, up to 10 s.
func (o *own) limits() streamLimits {
	return streamLimits{queue: 4096, window: maxInFlight, pause: time.Second, maxPause: 10 * time.Second, timeout: o.timeout}
}

func (o *own) connect(gen uint64) (*stream, error) {
	conn, err := dialStream(o.broker, o.car.String(), o.limits(), func(topic, payload []byte) { o.receive(gen, string(topic), payload) })
	if err != nil {
		return nil, err
	}
	limit := time.NewTimer(o.timeout)
	defer limit.Stop()
	select {
	case err = <-conn.subscribe(o.topics.down, o.topics.notification):
		if err != nil {
			err = fmt.Errorf("subscribe %s: %w", o.topics.down, err)
		}
	case <-limit.C:
		err = fmt.Errorf("subscribe %s: no answer of the broker within %v", o.topics.down, o.timeout)
	}
	if err != nil {
		conn.close()
		return nil, err
	}
	return conn, nil
}

func (o *own) publish(topic string, payload []byte) bool {
	o.mu.Lock()
	conn := o.conn
	o.mu.Unlock()
	return conn != nil && conn.publish(topic, payload)
}

func (o *own) close() {
	o.gen.Store(0)
	o.mu.Lock()
	conn := o.conn
	o.conn = nil
	o.mu.Unlock()
	if conn != nil {
		o.enqueue(conn.close)
	}
}

func (o *own) shutdown() {
	o.close()
	o.jobs.Wait()
}
