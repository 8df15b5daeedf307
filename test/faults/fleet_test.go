package faults

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/testwait"
)

const company = "acme"

// recorder is the number of the module that writes down what it gets, spare that
// of a second library, for cars that a fault does not concern.
const (
	recorder = 78
	spare    = 79
)

// car is a gateway with one device, and what became of its statuses. Each status
// is the JSON text "<car> <sequence number>", so that every kind of module takes it.
type car struct {
	*gateway.Gateway
	name   string
	device fleet.Device
	tail   string // appended to every status

	mu       sync.Mutex
	next     int            // sequence number of the next status
	onWay    map[uint32]int // counter in this session -> sequence number
	sent     map[int]bool
	answered map[int]bool
	recent   time.Time // when the newest answered status was sent
	first    time.Time // when the first answer came since this was made zero
	// latencies of the answers since somebody took them, a hundred at most
	latencies []time.Duration
	longest   time.Duration // wait for an answer, see forgetWaits
	running   bool          // between Connected and Disconnected
	sessions  int
	commands  int
	keeps     bool                   // notes the data of commands in got
	got       []string               // in order
	ends      map[gateway.Reason]int // of sessions that ran
	wrong     map[gateway.Reason]int // violations
}

// crew is a set of cars and the goroutine that lets them report.
type crew struct {
	t    testing.TB
	cars []*car
	stop chan struct{}
	done sync.WaitGroup
}

// carOptions of newCar.
type carOptions struct {
	name   string
	module int32
	pool   *gateway.Pool // nil: a connection of its own to broker
	broker gateway.Broker
	timing gateway.Timing
	tail   string
}

func newCar(t testing.TB, o carOptions) *car {
	t.Helper()
	c := &car{
		name: o.name, tail: o.tail,
		device:   fleet.Device{Module: o.module, Type: 1, Role: "device", Name: "Device"},
		onWay:    make(map[uint32]int),
		sent:     make(map[int]bool),
		answered: make(map[int]bool),
		ends:     make(map[gateway.Reason]int),
		wrong:    make(map[gateway.Reason]int),
	}
	g, err := gateway.Start(gateway.Settings{
		Car: fleet.CarID{Company: company, Car: o.name}, Pool: o.pool, Broker: o.broker,
		Core: gateway.Options{Timing: o.timing, Steady: true}, Observe: c.observe,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Gateway = g
	return c
}

// sequence returns the number in a status.
func sequence(data []byte) (int, bool) {
	fields := strings.Fields(strings.Trim(string(data[:min(len(data), 64)]), "\"\n"))
	if len(fields) < 2 {
		return 0, false
	}
	n, err := strconv.Atoi(fields[1])
	return n, err == nil
}

func (c *car) observe(e gateway.Effect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.Kind {
	case gateway.EffectSend:
		switch e.Message.Kind {
		case fleet.ClientConnect:
			clear(c.onWay)
		case fleet.ClientStatus:
			if n, ok := sequence(e.Message.Data); ok {
				c.onWay[e.Message.Counter] = n
				c.sent[n] = true
			}
		}
	case gateway.EffectAnswered:
		if n, ok := c.onWay[e.Counter]; ok {
			c.answered[n] = true
			delete(c.onWay, e.Counter)
		}
		if e.Sent.After(c.recent) {
			c.recent = e.Sent
		}
		if c.first.IsZero() {
			c.first = time.Now()
		}
		c.longest = max(c.longest, time.Since(e.Sent))
		if len(c.latencies) < 100 {
			c.latencies = append(c.latencies, time.Since(e.Sent))
		}
	case gateway.EffectConnected:
		c.running = true
		c.sessions++
	case gateway.EffectDisconnected:
		c.running = false
		c.ends[e.Reason]++
	case gateway.EffectCommand:
		if len(e.Data) > 0 {
			c.commands++
			if c.keeps {
				c.got = append(c.got, string(e.Data))
			}
		}
	case gateway.EffectViolation:
		c.wrong[e.Reason]++
	}
}

// report sends the next status.
func (c *car) report() {
	c.mu.Lock()
	n := c.next
	c.next++
	c.mu.Unlock()
	c.Status(c.device, fmt.Appendf(nil, `"%s %d%s"`, c.name, n, c.tail), time.Time{})
}

// servedSince tells whether a status sent at or after the time was answered.
func (c *car) servedSince(at time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running && !c.recent.Before(at)
}

func (c *car) lostSessions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, count := range c.ends {
		n += count
	}
	return n
}

// start lets every car report once per period, evenly spread, until halt.
func (f *crew) start(period time.Duration) {
	f.stop = make(chan struct{})
	f.done.Go(func() {
		const beat = 10 * time.Millisecond
		tick := time.NewTicker(beat)
		defer tick.Stop()
		begin := time.Now()
		due := 0
		for {
			for want := int(float64(time.Since(begin)) / float64(period) * float64(len(f.cars))); due < want; due++ {
				f.cars[due%len(f.cars)].report()
			}
			select {
			case <-tick.C:
			case <-f.stop:
				return
			}
		}
	})
}

// halt ends the reports.
func (f *crew) halt() {
	close(f.stop)
	f.done.Wait()
}

// served waits until every car has had a status answered that it sent at or after
// the time, and returns how long after it that was.
func (f *crew) served(at time.Time, patience time.Duration) time.Duration {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for _, c := range f.cars {
		for !c.servedSince(at) {
			if time.Now().After(deadline) {
				f.t.Fatalf("car %s is not served %v after the fault: phase %v, broker %v, sessions ended %v, violations %v",
					c.name, patience, c.Phase(), c.LinkError(), c.reasons(c.ends), c.reasons(c.wrong))
			}
			pause(5 * time.Millisecond)
		}
	}
	return time.Since(at)
}

// waitingLess waits until no car has waited for an answer for longer than the limit.
func (f *crew) waitingLess(limit time.Duration) {
	f.t.Helper()
	deadline := time.Now().Add(2 * testwait.Patience)
	for _, c := range f.cars {
		for !c.servedSince(time.Now().Add(-limit)) {
			if time.Now().After(deadline) {
				f.t.Fatalf("car %s is not served", c.name)
			}
			pause(5 * time.Millisecond)
		}
	}
}

// settle waits until nothing is on its way any more, as far as the time limits of
// the gateways allow.
func (f *crew) settle(patience time.Duration) {
	deadline := time.Now().Add(patience)
	for _, c := range f.cars {
		for time.Now().Before(deadline) {
			c.mu.Lock()
			left := len(c.onWay)
			c.mu.Unlock()
			if left == 0 {
				break
			}
			pause(5 * time.Millisecond)
		}
	}
}

func (c *car) reasons(m map[gateway.Reason]int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for r, n := range m {
		out = append(out, fmt.Sprintf("%d × %v", n, r))
	}
	return strings.Join(out, ", ")
}

// pause is the time between two looks at a condition, and how long a fault lasts.
func pause(d time.Duration) { <-time.After(d) }
