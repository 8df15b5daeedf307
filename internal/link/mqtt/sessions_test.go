package mqtt_test

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"external-server/internal/broker"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// What was sent while no process was there is delivered to the next one, in order, after
// what the one before had not acknowledged; then the next one learns that this was all (RES-1).
// The server speaks MQTT 5 then (CONN-4).
func TestSessionOutlivesTheProcess(t *testing.T) {
	certs := brokertest.NewCerts(t)
	for _, tc := range []struct {
		name  string
		start func(t *testing.T) (address string)
		tls   *tls.Config
	}{
		{"default settings", func(t *testing.T) string { return plain(t, "").Address() }, nil},
		{"raised settings", func(t *testing.T) string {
			return plain(t, "max_queued_messages 100000\nmax_inflight_messages 1000\n").Address()
		}, nil},
		{"own broker, kept sessions", startKeeping, nil},
		{"TLS", func(t *testing.T) string { return brokertest.Start(t, brokertest.Options{Certs: certs}).Address() }, certs.ClientConfig(&certs.Client)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const cars, while = 6, 100
			address := tc.start(t)
			opts := mqtt.Options{Address: address, Sessions: sessions(3, "one")}
			if tc.tls != nil {
				opts.TLS = func() (*tls.Config, error) { return tc.tls, nil }
			}
			g, err := brokertest.Dial(brokertest.PeerOptions{Address: address, TLS: tc.tls})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Conn.Close()
			name := func(i int) fleet.CarID { return id("company", fmt.Sprintf("car_%d", i)) }
			silent := func(*keeper, string, link.Delivery) {} // acknowledges nothing
			l := newLink(t, opts)
			var old []*keeper
			for i := range cars {
				old = append(old, attachKeeper(t, l, name(i), silent))
			}
			end := runSuspendable(t, l)
			testwait.Until(t, "the link is up", func() bool { return l.State().Up })
			for i := range cars {
				say(t, g, name(i), "unanswered")
			}
			for _, k := range old {
				testwait.Until(t, "the message arrives", func() bool { return slices.Equal(k.heard(), []string{"fresh", "unanswered"}) })
			}
			if s := l.State().Connections; len(s) != 3 || s[0].Version != "5" || !s[0].Kept || s[0].Unacknowledged+s[1].Unacknowledged+s[2].Unacknowledged != cars {
				t.Errorf("state: %+v", s)
			}
			end(link.ErrSuspend)
			for _, k := range old {
				if got := k.heard(); got[len(got)-1] != "down true" {
					t.Errorf("the old process heard %q", got)
				}
			}
			for _, s := range numbers(while) {
				for i := range cars {
					say(t, g, name(i), s)
				}
			}
			ping(t, g)
			l = newLink(t, opts)
			var next []*keeper
			for i := range cars {
				next = append(next, attachKeeper(t, l, name(i), nil))
			}
			end = runSuspendable(t, l)
			want := append([]string{"continued", "unanswered again"}, numbers(while)...)
			want = append(want, "read")
			for i, k := range next {
				testwait.Until(t, "the backlog is read", func() bool { return slices.Contains(k.heard(), "read") })
				if got := k.heard(); !slices.Equal(got, want) {
					t.Errorf("car %d heard %q", i, got)
				}
			}
			st := l.State()
			var total link.ConnectionState
			for _, s := range st.Connections {
				total.Resumed, total.Redelivered, total.Backlog = total.Resumed+s.Resumed, total.Redelivered+s.Redelivered, total.Backlog+s.Backlog
				total.BarriersGivenUp += s.BarriersGivenUp
			}
			if total.Resumed != 3 || total.Redelivered != cars || total.Backlog != cars*(while+1) || total.BarriersGivenUp != 0 {
				t.Errorf("state: %+v", total)
			}
			end(nil) // for good: nothing is kept
			say(t, g, name(0), "to nobody")
			ping(t, g)
			l = newLink(t, opts)
			last := attachKeeper(t, l, name(0), nil)
			runSuspendable(t, l)
			testwait.Until(t, "the link is up", func() bool { return l.State().Up })
			say(t, g, name(0), "new")
			testwait.Until(t, "the message arrives", func() bool { return len(last.heard()) > 1 })
			if got := last.heard(); !slices.Equal(got, []string{"fresh", "new"}) {
				t.Errorf("after the end for good: %q", got)
			}
		})
	}
}

// A broker that is restarted keeps the session if it keeps it on disk; without that the
// cars learn that nothing continues (RES-5).
func TestSessionAndTheBrokersRestart(t *testing.T) {
	for _, persistent := range []bool{true, false} {
		t.Run(fmt.Sprint(persistent), func(t *testing.T) {
			lines := ""
			if persistent {
				lines = "persistence true\nautosave_interval 1\nautosave_on_changes true\npersistence_location " + t.TempDir() + "/\n"
			}
			m := plain(t, lines)
			l := newLink(t, mqtt.Options{Address: m.Address(), Sessions: sessions(1, "one")})
			car := id("company", "car")
			k := attachKeeper(t, l, car, nil)
			runSuspendable(t, l)
			g := gateway(t, m.Address(), car)
			testwait.Until(t, "the link is up", func() bool { return l.State().Up })
			say(t, g, car, "before")
			testwait.Until(t, "the message is acknowledged", func() bool {
				return strings.Contains(m.Log(), "Received PUBACK from es-test-0 (Mid: 2")
			})
			m.End()
			m.Restart()
			want := []string{"fresh", "before", "down true", "fresh"}
			if persistent {
				want = []string{"fresh", "before", "down true", "continued", "read"}
			}
			testwait.Until(t, "the link is up again", func() bool { return len(k.heard()) >= len(want) })
			if got := k.heard(); !slices.Equal(got, want) {
				t.Errorf("heard %q", got)
			}
			g = gateway(t, m.Address(), car)
			say(t, g, car, "after")
			testwait.Until(t, "the message arrives", func() bool { return slices.Contains(k.heard(), "after") })
		})
	}
}

// The embedded broker keeps nothing; its cars are served as without sessions.
func TestSessionsDeclinedByTheEmbeddedBroker(t *testing.T) {
	b := startEmbedded(t, broker.Options{})
	declined(t, b.Addr().String(), "5", "keeps no sessions")
}

// declined runs two servers, one after the other, on a broker that keeps no sessions for them: the car is served by
// fresh ones, and the warning is said once.
func declined(t *testing.T, address, version, warning string) {
	car := id("company", "car")
	for range 2 {
		log, logger := newTestLog(t)
		l := newLink(t, mqtt.Options{Address: address, Sessions: sessions(4, "one"), Logger: logger})
		k := attachKeeper(t, l, car, func(k *keeper, payload string, d link.Delivery) { k.port.Publish([]byte("re: "+payload), d.Ack) })
		end := runSuspendable(t, l)
		testwait.Until(t, "the link is up", func() bool { return l.State().Up })
		g := gateway(t, address, car)
		say(t, g, car, "hello")
		if got := hear(t, g); string(got.Payload) != "re: hello" {
			t.Errorf("answer %q", got.Payload)
		}
		if got := k.heard(); !slices.Equal(got, []string{"fresh", "hello"}) {
			t.Errorf("heard %q", got)
		}
		if s := l.State().Connections[0]; s.Kept || s.Version != version {
			t.Errorf("state: %+v", s)
		}
		if log.count("level=WARN", warning) != 1 {
			t.Error("it was not said once")
		}
		end(link.ErrSuspend)
		say(t, g, car, "between two servers")
		ping(t, g)
	}
}

// Two servers with the same client identifiers: one of them stops and says why (RES-16).
func TestTwoServersWithTheSameSessions(t *testing.T) {
	m := plain(t, "")
	car := id("company", "car")
	logs := make([]*testLog, 2)
	links := make([]*mqtt.Link, 2)
	keepers := make([]*keeper, 2)
	for i, self := range []string{"host a, process 1", "host b, process 2"} {
		var opts mqtt.Options
		logs[i], opts.Logger = newTestLog(t)
		opts.Address, opts.Sessions = m.Address(), sessions(2, self)
		links[i] = newLink(t, opts)
		keepers[i] = attachKeeper(t, links[i], car, nil)
		runSuspendable(t, links[i])
		if i == 0 {
			testwait.Until(t, "the first one is up", func() bool { return links[0].State().Up })
		}
	}
	stopped := -1
	testwait.Until(t, "one of them stops", func() bool {
		for i, l := range links {
			if s := l.State(); s.Stopped != "" && !s.Up {
				stopped = i
			}
		}
		return stopped >= 0
	})
	other := links[1-stopped]
	g := gateway(t, m.Address(), car)
	testwait.Until(t, "the other one serves", func() bool {
		say(t, g, car, "hello")
		return other.State().Up && slices.Contains(keepers[1-stopped].heard(), "hello")
	})
	if s := other.State(); s.Stopped != "" {
		t.Errorf("the other one has stopped too: %s", s.Stopped)
	}
	testwait.Until(t, "the error names both", func() bool {
		return logs[stopped].count("level=ERROR", "host a, process 1", "host b, process 2", "client_id") == 1
	})
	testwait.Until(t, "the car of the stopped one hears of it", func() bool {
		got := keepers[stopped].heard()
		return len(got) > 0 && strings.HasPrefix(got[len(got)-1], "down ")
	})
}

// One line says that the broker is reached, when all connections are, that of the watches
// among them: a car whose own comes later would miss an answer to its Connect.
func TestOneLineForAllConnections(t *testing.T) {
	m := plain(t, "")
	log, logger := newTestLog(t)
	l := newLink(t, mqtt.Options{Address: m.Address(), Sessions: sessions(32, "one"), Logger: logger})
	attachKeeper(t, l, id("company", "car"), nil)
	if _, err := l.Watch("company", func(fleet.CarID, []byte) {}); err != nil {
		t.Fatal(err)
	}
	runSuspendable(t, l)
	testwait.Until(t, "all are connected", func() bool { return log.count("connected to the broker") == 33 })
	if n := log.count("connected to the broker", "level=INFO"); n != 1 {
		t.Errorf("%d lines", n)
	}
}

// A broker that makes the user name the client identifier would have every connection end
// the others: the cars are served over one, without sessions.
func TestUserNameAsClientID(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{Username: "server", Password: "x", Others: map[string]string{"gateway": "x"}, Extra: "use_username_as_clientid true\n"})
	log, logger := newTestLog(t)
	l := newLink(t, mqtt.Options{Address: m.Address(), Username: "server", Password: "x", Sessions: sessions(4, "one"), Logger: logger})
	var cars []fleet.CarID
	var keepers []*keeper
	for i := range 8 {
		cars = append(cars, id("company", fmt.Sprintf("car_%d", i)))
		keepers = append(keepers, attachKeeper(t, l, cars[i], func(k *keeper, payload string, d link.Delivery) { k.port.Publish([]byte(payload), d.Ack) }))
	}
	if _, err := l.Watch("company", func(fleet.CarID, []byte) {}); err != nil {
		t.Fatal(err)
	}
	runSuspendable(t, l)
	testwait.Until(t, "the sessions are given up", func() bool { return l.State().Declined != "" })
	// The one that stays was begun with a kept session and is made anew.
	const connected = "connected to the broker"
	testwait.Until(t, "the connection is one without session", func() bool {
		return log.count(connected, "connection=0") > log.count(connected, "connection=0", "client_id=es-test-")
	})
	testwait.Until(t, "the link is up", func() bool { s := l.State(); return s.Up && len(s.Connections) == 1 && s.Connections[0].Cars == 8 })
	testwait.Until(t, "all cars are served over it", func() bool {
		return !slices.ContainsFunc(keepers, func(k *keeper) bool { got := k.heard(); return len(got) == 0 || got[len(got)-1] != "fresh" })
	})
	g, err := brokertest.Dial(brokertest.PeerOptions{Address: m.Address(), Username: "gateway", Password: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Conn.Close()
	for _, car := range cars {
		if err := g.Subscribe(1, car.String()+"/external_server"); err != nil {
			t.Fatal(err)
		}
		say(t, g, car, "hello")
		if got := hear(t, g); string(got.Payload) != "hello" {
			t.Errorf("answer %q", got.Payload)
		}
	}
	if log.count("level=WARN", "use_username_as_clientid") != 1 {
		t.Error("the reason was not said once")
	}
	if n := l.State().Connections[0].Connects; n > 20 {
		t.Errorf("%d connections until then", n)
	}
}

// What a kept session holds for a car that is not configured any more is given up: its
// gateway is told, and the topic is left.
func TestLeftovers(t *testing.T) {
	m := plain(t, "")
	opts := mqtt.Options{Address: m.Address(), Sessions: sessions(1, "one")}
	kept, gone := id("company", "kept"), id("company", "gone")
	l := newLink(t, opts)
	attachKeeper(t, l, kept, nil)
	attachKeeper(t, l, gone, nil)
	end := runSuspendable(t, l)
	testwait.Until(t, "the link is up", func() bool { return l.State().Up })
	end(link.ErrSuspend)
	g := gateway(t, m.Address(), gone)
	for _, s := range numbers(5) {
		say(t, g, gone, s)
	}
	say(t, g, kept, "hello")
	l = newLink(t, opts)
	k := attachKeeper(t, l, kept, nil)
	runSuspendable(t, l)
	testwait.Until(t, "the backlog is read", func() bool { return slices.Equal(k.heard(), []string{"continued", "hello", "read"}) })
	if got := hear(t, g); got.Topic != gone.String()+"/external_server_disconnect" {
		t.Errorf("the gateway got %+v", got)
	}
	testwait.Until(t, "the topic is left", func() bool { return strings.Contains(m.Log(), "Received UNSUBSCRIBE from es-test-0") })
	say(t, g, kept, "more")
	testwait.Until(t, "the next message arrives", func() bool { return slices.Contains(k.heard(), "more") })
	if s := l.State().Connections[0]; s.Leftovers != 1 {
		t.Errorf("state: %+v", s)
	}
	testwait.Until(t, "all is acknowledged", func() bool { return l.State().Connections[0].Unacknowledged == 0 })
}

// The sessions of a server that does not come back are forgotten by the broker, with all that
// it held for them (RES-1).
func TestServerThatDoesNotComeBack(t *testing.T) {
	m := plain(t, "sys_interval 1\n")
	sys, err := brokertest.Dial(brokertest.PeerOptions{Address: m.Address()})
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	if err := sys.Subscribe(0, "$SYS/broker/clients/expired"); err != nil {
		t.Fatal(err)
	}
	opts := mqtt.Options{Address: m.Address(), Sessions: sessions(2, "one")}
	opts.Sessions.Expiry = time.Second
	car := id("company", "car")
	l := newLink(t, opts)
	attachKeeper(t, l, car, nil)
	end := runSuspendable(t, l)
	testwait.Until(t, "the link is up", func() bool { return l.State().Up })
	end(link.ErrSuspend)
	g := gateway(t, m.Address(), car)
	say(t, g, car, "nobody hears this")
	testwait.Until(t, "both sessions have expired", func() bool {
		got, err := sys.Receive(testwait.Patience)
		if err != nil {
			t.Fatal(err)
		}
		return string(got.Payload) == "2"
	})
	l = newLink(t, opts)
	k := attachKeeper(t, l, car, nil)
	runSuspendable(t, l)
	testwait.Until(t, "the link is up again", func() bool { return l.State().Up })
	say(t, g, car, "heard")
	testwait.Until(t, "it is served", func() bool { return slices.Contains(k.heard(), "heard") })
	if got := k.heard(); !slices.Equal(got, []string{"fresh", "heard"}) {
		t.Errorf("heard %q", got)
	}
}

// A queue of the broker that has overflowed does not hide the end of the backlog, nor
// does a broker that refuses the private topic (RES-15).
func TestEndOfTheBacklog(t *testing.T) {
	for _, tc := range []struct {
		name, lines string
		messages    int
		warnings    int
	}{
		{"queue full", "", 1300, 0},
		{"topic refused", "acl", 10, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.lines != "" {
				file := filepath.Join(t.TempDir(), "acl")
				if err := os.WriteFile(file, []byte("topic readwrite company/#\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				tc.lines = "acl_file " + file + "\n"
			}
			m := plain(t, tc.lines)
			log, logger := newTestLog(t)
			opts := mqtt.Options{Address: m.Address(), Sessions: sessions(1, "one"), Logger: logger}
			car := id("company", "car")
			l := newLink(t, opts)
			attachKeeper(t, l, car, nil)
			end := runSuspendable(t, l)
			testwait.Until(t, "the link is up", func() bool { return l.State().Up })
			end(link.ErrSuspend)
			g := gateway(t, m.Address(), car)
			for _, s := range numbers(tc.messages) {
				say(t, g, car, s)
			}
			l = newLink(t, opts)
			k := attachKeeper(t, l, car, nil)
			runSuspendable(t, l)
			testwait.Until(t, "the backlog is read", func() bool { return slices.Contains(k.heard(), "read") })
			got := k.heard()
			if tc.warnings == 0 {
				got = got[:len(got)-1]
			} else {
				got = slices.DeleteFunc(got, func(s string) bool { return s == "read" })
			}
			if n := min(tc.messages, 1000); len(got) < n || !slices.Equal(got[1:n], numbers(n-1)) || got[0] != "continued" {
				t.Errorf("heard %d: %.200q", len(got), got)
			}
			if n := log.count("level=WARN", "external_server/#"); n < tc.warnings || n > 2 {
				t.Errorf("%d warnings", n)
			}
		})
	}
}
