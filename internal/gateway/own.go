package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

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
	conn *sender
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

func (o *own) connect(gen uint64) (*sender, error) {
	opts := o.broker.options(o.car.String(), o.timeout).
		SetAutoReconnect(true).
		SetMaxReconnectInterval(10 * time.Second).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { o.receive(gen, m.Topic(), m.Payload()) })
	client := mqtt.NewClient(opts)
	if err := wait(client.Connect(), o.timeout, "connect to "+o.broker.Address); err != nil {
		client.Disconnect(quiesce)
		return nil, err
	}
	token := client.SubscribeMultiple(map[string]byte{o.topics.down: 1, o.topics.notification: 1}, nil)
	err := wait(token, o.timeout, "subscribe "+o.topics.down)
	if err == nil {
		err = subscribed(token)
	}
	if err != nil {
		client.Disconnect(quiesce)
		return nil, err
	}
	return newSender(client, 4096, maxInFlight), nil
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
