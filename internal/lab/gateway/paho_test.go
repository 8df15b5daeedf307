package gateway

import (
	"fmt"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// What is here speaks MQTT with a library of others: what our own packets and those of
// others disagree about shows in the tests of this package.

// pahoOptions returns the client settings of a gateway (CONN-4 to CONN-9): MQTT 3.1.1, clean session,
// ordered delivery.
func pahoOptions(b Broker, clientID string, timeout time.Duration) *mqtt.ClientOptions {
	scheme := "tcp://"
	if b.TLS != nil {
		scheme = "ssl://"
	}
	return mqtt.NewClientOptions().
		AddBroker(scheme + b.Address).
		SetClientID(clientID).
		SetProtocolVersion(4).
		SetCleanSession(true).
		SetKeepAlive(keepAlive).
		SetConnectTimeout(timeout).
		SetWriteTimeout(5 * time.Second).
		SetOrderMatters(true).
		SetTLSConfig(b.TLS).
		SetUsername(b.Username).
		SetPassword(b.Password)
}

// sender publishes what is queued in order, with a bounded number of messages
// that the broker has not acknowledged (GW-8).
type sender struct {
	client mqtt.Client
	out    chan outgoing
	stop   chan struct{}
	done   chan struct{}
	window int
}

func newSender(client mqtt.Client, queue, window int) *sender {
	s := &sender{client: client, window: window, out: make(chan outgoing, queue), stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// publish queues a message; false: the broker is away or the queue is full.
func (s *sender) publish(topic string, payload []byte) bool {
	if !s.client.IsConnectionOpen() {
		return false
	}
	select {
	case s.out <- outgoing{topic, payload}:
		return true
	default:
		return false
	}
}

func (s *sender) run() {
	defer close(s.done)
	tokens := make([]mqtt.Token, 0, s.window)
	for {
		select {
		case <-s.stop:
			return
		case m := <-s.out:
			if len(tokens) == s.window {
				select {
				case <-s.stop:
					return
				case <-tokens[0].Done():
				}
				n := 1
				for n < len(tokens) && isDone(tokens[n]) {
					n++
				}
				tokens = tokens[:copy(tokens, tokens[n:])]
			}
			tokens = append(tokens, s.client.Publish(m.topic, 1, false, m.payload))
		}
	}
}

func isDone(t mqtt.Token) bool {
	select {
	case <-t.Done():
		return true
	default:
		return false
	}
}

// quiesce is the time the library takes at most to say goodbye, in milliseconds.
const quiesce = 250

// close forgets what is queued, says goodbye to the broker and waits for the
// sender.
func (s *sender) close() {
	close(s.stop)
	s.client.Disconnect(quiesce)
	<-s.done
}

// wait waits for a token and returns its error, or one that says what did not
// happen in time.
func wait(t mqtt.Token, timeout time.Duration, what string) error {
	if !t.WaitTimeout(timeout) {
		return fmt.Errorf("%s: no answer of the broker within %v", what, timeout)
	}
	if err := t.Error(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
