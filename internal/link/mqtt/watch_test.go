package mqtt_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"external-server/internal/broker"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// A watch finds cars by their first message; a car that is attached meanwhile
// gets every message once.
func TestWatchFindsCars(t *testing.T) {
	brokers(t, func(t *testing.T, address string) {
		l := newLink(t, mqtt.Options{Address: address})
		named, _ := attach(t, l, id("company", "named")) // before the watch
		var mu sync.Mutex
		found := make(map[fleet.CarID]*recorder)
		_, err := l.Watch("company", func(car fleet.CarID, _ []byte) {
			if car.Car == "unwanted" {
				return
			}
			r, _ := attach(t, l, car)
			mu.Lock()
			found[car] = r
			mu.Unlock()
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Watch("company", func(fleet.CarID, []byte) {}); err == nil {
			t.Error("a second watch of the company was accepted")
		}
		runLink(t, l)
		waitUp(t, named)
		late, _ := attach(t, l, id("company", "late"))
		waitUp(t, late)
		g, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Conn.Close()
		cars := []fleet.CarID{id("company", "named"), id("company", "late"), id("company", "new_1"), id("company", "new_2"), id("company", "unwanted")}
		for _, s := range numbers(50) {
			for _, car := range cars {
				say(t, g, car, s)
			}
		}
		say(t, g, id("company", "Bad Name"), "x")
		say(t, g, id("stranger", "car"), "x")
		say(t, g, id("company", "new_1"), "end")
		testwait.Until(t, "the last message arrives", func() bool {
			mu.Lock()
			defer mu.Unlock()
			r := found[id("company", "new_1")]
			return r != nil && slices.Contains(r.received(), "end")
		})
		for name, r := range map[string]*recorder{"named": named, "late": late, "new_1": found[id("company", "new_1")]} {
			testwait.Until(t, name+" is told of the end of the batch", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.waiting == 0
			})
		}
		want := strings.Join(numbers(50), ",")
		for name, r := range map[string]*recorder{"named": named, "late": late, "new_2": found[id("company", "new_2")]} {
			if got := strings.Join(r.received(), ","); got != want {
				t.Errorf("car %s got %s", name, got)
			}
			if r.upCount() != 1 {
				t.Errorf("car %s was told %d times that the link is up", name, r.upCount())
			}
		}
		if len(found) != 2 {
			t.Errorf("found cars: %v", found)
		}
		if st := l.State().Connections[0]; st.IgnoredBadName != 1 || st.IgnoredForeign != 50 {
			t.Errorf("state: %+v", st)
		}
	})
}

// A watch that begins and ends while messages flow neither loses nor repeats
// one.
func TestWatchComesAndGoes(t *testing.T) {
	const rounds = 5
	brokers(t, func(t *testing.T, address string) {
		l := startLink(t, mqtt.Options{Address: address})
		car := id("company", "car")
		r, _ := attach(t, l, car)
		waitUp(t, r)
		g := gateway(t, address, car)
		stopSending := make(chan struct{})
		sent := make(chan int)
		go func() {
			n := 0
			defer func() { sent <- n }()
			for ; ; n++ {
				select {
				case <-stopSending:
					return
				default:
				}
				if err := g.Publish(car.String()+"/module_gateway", []byte(fmt.Sprint(n)), false); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		for range rounds {
			for _, watching := range []bool{true, false} {
				var stop func()
				if watching {
					var err error
					if stop, err = l.Watch("company", func(fleet.CarID, []byte) {}); err != nil {
						t.Fatal(err)
					}
					defer stop()
				}
				n := len(r.received())
				testwait.Until(t, "messages keep flowing", func() bool { return len(r.received()) > n+20 })
				if watching {
					stop()
				}
			}
		}
		close(stopSending)
		n := <-sent
		testwait.Until(t, "all messages arrive", func() bool { return len(r.received()) >= n })
		if got := r.received(); !slices.Equal(got, numbers(n)) {
			t.Errorf("%d messages were sent and %d delivered: %v", n, len(got), firstDifference(got))
		}
		if r.upCount() != 1 || len(r.lost()) != 0 {
			t.Errorf("the car saw the link come %d times and go %v", r.upCount(), r.lost())
		}
	})
}

func firstDifference(got []string) string {
	for i, s := range got {
		if s != fmt.Sprint(i) {
			return fmt.Sprintf("%s at position %d", s, i)
		}
	}
	return "the end is missing"
}

// With several connections the watch and the cars' own subscriptions do not get
// into each other's way.
func TestWatchWithSeveralConnections(t *testing.T) {
	brokers(t, func(t *testing.T, address string) {
		l := startLink(t, mqtt.Options{Address: address, Connections: 3})
		var recorders []*recorder
		var cars []fleet.CarID
		for i := range 6 {
			car := id("company", fmt.Sprintf("car_%d", i))
			r, _ := attach(t, l, car)
			recorders, cars = append(recorders, r), append(cars, car)
		}
		waitUp(t, recorders...)
		var mu sync.Mutex
		var unknown []fleet.CarID
		if _, err := l.Watch("company", func(car fleet.CarID, _ []byte) {
			mu.Lock()
			defer mu.Unlock()
			unknown = append(unknown, car)
		}); err != nil {
			t.Fatal(err)
		}
		g := gateway(t, address, cars[0])
		testwait.Until(t, "the watch works", func() bool {
			say(t, g, id("company", "stranger"), "x")
			mu.Lock()
			defer mu.Unlock()
			return len(unknown) > 0
		})
		for _, s := range numbers(20) {
			for _, car := range cars {
				say(t, g, car, s)
			}
		}
		for i, r := range recorders {
			testwait.Until(t, "all messages arrive", func() bool { return len(r.received()) >= 20 })
			if got := r.received(); !slices.Equal(got, numbers(20)) {
				t.Errorf("car %d got %v", i, got)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, car := range unknown {
			if car.Car != "stranger" {
				t.Errorf("attached car %v was reported as unknown", car)
			}
		}
	})
}

// A broker that refuses the wildcard still serves the named cars.
func TestWatchRefused(t *testing.T) {
	b := startEmbedded(t, broker.Options{Users: []broker.User{{Name: "server", Password: "x", Prefix: "company/car"}}})
	log, logger := newTestLog(t)
	l := newLink(t, mqtt.Options{Address: b.Addr().String(), Username: "server", Password: "x", Logger: logger})
	if _, err := l.Watch("company", func(fleet.CarID, []byte) {}); err != nil {
		t.Fatal(err)
	}
	r, _ := attach(t, l, id("company", "car"))
	runLink(t, l)
	waitUp(t, r)
	if log.count("level=WARN", "company/+/module_gateway") != 1 {
		t.Error("the refusal was not logged")
	}
	g, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String(), Username: "server", Password: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Conn.Close()
	say(t, g, id("company", "car"), "hello")
	testwait.Until(t, "the message arrives", func() bool { return slices.Equal(r.received(), []string{"hello"}) })
}

func TestAttachAndCloseWhileRunning(t *testing.T) {
	brokers(t, func(t *testing.T, address string) {
		l := startLink(t, mqtt.Options{Address: address})
		car := id("company", "car")
		g := gateway(t, address, car)
		if _, err := l.Attach(id("Company", "car"), &recorder{}); err == nil {
			t.Error("a company that cannot be a topic was accepted")
		}
		if _, err := l.Attach(id("company", ""), &recorder{}); err == nil {
			t.Error("a car without name was accepted")
		}
		var old []*recorder
		for i := range 10 {
			r, p := attach(t, l, car)
			if _, err := l.Attach(car, &recorder{}); err == nil {
				t.Error("a car was attached twice")
			}
			if i%2 == 0 { // otherwise closed while its subscription is under way
				waitUp(t, r)
				say(t, g, car, fmt.Sprint(i))
				testwait.Until(t, "the message arrives", func() bool { return slices.Equal(r.received(), []string{fmt.Sprint(i)}) })
			}
			p.Close()
			p.Close()
			if p.Publish([]byte("x"), link.Ack{}) || p.NotifyDisconnect() {
				t.Error("a closed port accepts messages")
			}
			old = append(old, r)
		}
		last, _ := attach(t, l, car)
		waitUp(t, last)
		say(t, g, car, "last")
		testwait.Until(t, "the message arrives", func() bool { return slices.Equal(last.received(), []string{"last"}) })
		for i, r := range old {
			if slices.Contains(r.received(), "last") {
				t.Errorf("receiver %d was closed and got a message", i)
			}
		}
		if n := l.State().Cars; n != 1 {
			t.Errorf("%d cars are attached", n)
		}
	})
}

// Many cars attached at once are subscribed in few packets and spread over
// connections.
func TestManyCars(t *testing.T) {
	const cars = 2500
	m := brokertest.Start(t, brokertest.Options{})
	l := newLink(t, mqtt.Options{Address: m.Address()})
	var recorders []*recorder
	for i := range cars {
		r, _ := attach(t, l, id("company", fmt.Sprintf("car_%d", i)))
		recorders = append(recorders, r)
	}
	runLink(t, l)
	waitUp(t, recorders...)
	st := l.State()
	if !st.Up || len(st.Connections) != 3 || st.Cars != cars {
		t.Errorf("state: %+v", st)
	}
	if n := strings.Count(m.Log(), "Received SUBSCRIBE"); n > 20 {
		t.Errorf("%d SUBSCRIBE packets for %d cars", n, cars)
	}
}

// A message that the receiver of its car refuses, because it has ended at this very
// moment, finds the car anew.
func TestWatchFindsEndedCars(t *testing.T) {
	brokers(t, func(t *testing.T, address string) {
		l := newLink(t, mqtt.Options{Address: address})
		car := id("company", "car")
		var ports []link.Port
		found := make(chan *recorder, 9)
		if _, err := l.Watch("company", func(car fleet.CarID, _ []byte) {
			for _, p := range ports { // those who have ended
				p.Close()
			}
			r, p := attach(t, l, car)
			ports = append(ports, p)
			found <- r
		}); err != nil {
			t.Fatal(err)
		}
		runLink(t, l)
		testwait.Until(t, "the link is up", func() bool { return l.State().Up })
		g := gateway(t, address, car)
		say(t, g, car, "first")
		r := <-found
		testwait.Until(t, "the first message arrives", func() bool { return len(r.received()) == 1 })
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		say(t, g, car, "second")
		next := <-found
		testwait.Until(t, "the second message arrives", func() bool { return slices.Equal(next.received(), []string{"second"}) })
		if next.upCount() != 1 || len(r.received()) != 1 {
			t.Errorf("the link is up %d times for the new receiver, the old one has got %q", next.upCount(), r.received())
		}
	})
}
