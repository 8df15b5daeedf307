package mqtt_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/broker"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// The broker dies and comes back: the cars learn of both, their topics are
// subscribed again and nothing of before is sent (CONN-23, CONN-25, DEF-20).
func TestBrokerRestart(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	log, logger := newTestLog(t)
	l := startLink(t, mqtt.Options{Address: m.Address(), Logger: logger})
	car := id("company", "car")
	r, p := attach(t, l, car)
	waitUp(t, r)
	for round := 1; round <= 2; round++ {
		m.Kill()
		testwait.Until(t, "the car learns of the loss", func() bool { return len(r.lost()) == round })
		if p.Publish([]byte("while down"), link.Ack{}) || p.NotifyDisconnect() {
			t.Error("a message for a lost broker was accepted")
		}
		if l.State().Up {
			t.Error("the link says that it is up")
		}
		m.Restart()
		testwait.Until(t, "the car learns of the return", func() bool { return r.upCount() == round+1 })
		g := gateway(t, m.Address(), car)
		say(t, g, car, fmt.Sprint(round))
		testwait.Until(t, "the subscription is restored", func() bool { return len(r.received()) == round })
		if !p.Publish([]byte("after"), link.Ack{}) {
			t.Error("Publish failed after the return")
		}
		if got := hear(t, g); string(got.Payload) != "after" {
			t.Errorf("the car got %q, expected only what was sent after the return", got.Payload)
		}
	}
	if n := log.count("level=WARN", "no connection to the broker", "connection refused"); n > 2 {
		t.Errorf("the same reason was logged %d times in two outages", n)
	}
	if n := log.count("level=INFO", "connected to the broker"); n != 3 {
		t.Errorf("%d lines say that the broker is back, expected 3", n)
	}
	if s := l.State().Connections[0]; s.Connects != 3 || s.DroppedLinkDown == 0 {
		t.Errorf("state: %+v", s)
	}
}

// A broker that is there and does not answer is noticed by the keepalive.
func TestHalfOpenConnection(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	l := startLink(t, mqtt.Options{Address: m.Address(), KeepAlive: 3 * time.Second, ConnectTimeout: time.Second})
	r, _ := attach(t, l, id("company", "car"))
	waitUp(t, r)
	m.Stop()
	testwait.Until(t, "the loss is noticed", func() bool { return len(r.lost()) > 0 })
	if err := r.lost()[0]; !strings.Contains(err.Error(), "ping") {
		t.Errorf("reason: %v", err)
	}
	m.Continue()
	testwait.Until(t, "the link is up again", func() bool { return r.upCount() >= 2 })
}

// A quiet connection is kept alive.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	l := startLink(t, mqtt.Options{Address: m.Address(), KeepAlive: 3 * time.Second}) // the third part is for an answer
	r, _ := attach(t, l, id("company", "car"))
	waitUp(t, r)
	testwait.Until(t, "three pings are answered", func() bool { return strings.Count(m.Log(), "Sending PINGRESP") >= 3 })
	if len(r.lost()) > 0 {
		t.Errorf("connection lost: %v", r.lost())
	}
}

func TestRefusedAndUnreachable(t *testing.T) {
	open := brokertest.Start(t, brokertest.Options{})
	guarded := brokertest.Start(t, brokertest.Options{Username: "server", Password: "right"})
	embedded := startEmbedded(t, broker.Options{Users: []broker.User{{Name: "server", Password: "right"}}}).Addr().String()
	certs := brokertest.NewCerts(t)
	secure := brokertest.Start(t, brokertest.Options{Certs: certs})
	expired := brokertest.Start(t, brokertest.Options{Certs: certs, Expired: true})
	commonName := brokertest.Start(t, brokertest.Options{Certs: certs, CommonName: true})
	otherCA := brokertest.NewCerts(t)
	config := func(cfg *tls.Config) func() (*tls.Config, error) {
		return func() (*tls.Config, error) { return cfg, nil }
	}
	wrongHost := certs.ClientConfig(&certs.Client)
	wrongHost.ServerName = "broker.example"
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed := silent.Addr().String() // accepts, never answers
	for _, tc := range []struct {
		name string
		opts mqtt.Options
		want string // in the one warning; "": success
	}{
		{"password right", mqtt.Options{Address: guarded.Address(), Username: "server", Password: "right"}, ""},
		{"password wrong", mqtt.Options{Address: guarded.Address(), Username: "server", Password: "s3cret"}, "check user name"},
		{"no password", mqtt.Options{Address: guarded.Address()}, "check user name"},
		{"embedded, password right", mqtt.Options{Address: embedded, Username: "server", Password: "right"}, ""},
		{"embedded, password wrong", mqtt.Options{Address: embedded, Username: "server", Password: "s3cret"}, "check user name"},
		{"embedded, unknown user", mqtt.Options{Address: embedded, Username: "x", Password: "right"}, "check user name"},
		{"mutual TLS", mqtt.Options{Address: secure.Address(), TLS: config(certs.ClientConfig(&certs.Client))}, ""},
		{"wrong CA", mqtt.Options{Address: secure.Address(), TLS: config(otherCA.ClientConfig(&certs.Client))}, "signed by none of the authorities that this server trusts"},
		{"broker's certificate expired", mqtt.Options{Address: expired.Address(), TLS: config(certs.ClientConfig(&certs.Client))}, "has expired on"},
		{"wrong host name", mqtt.Options{Address: secure.Address(), TLS: config(wrongHost)}, "another host name"},
		{"common name only", mqtt.Options{Address: commonName.Address(), TLS: config(certs.ClientConfig(&certs.Client))}, "reissue it with subjectAltName"},
		{"no client certificate", mqtt.Options{Address: secure.Address(), TLS: config(certs.ClientConfig(nil))}, "certificate and key"},
		{"client certificate expired", mqtt.Options{Address: secure.Address(), TLS: config(certs.ClientConfig(&certs.ClientExpired))}, "certificate"},
		{"client certificate of another CA", mqtt.Options{Address: secure.Address(), TLS: config(certs.ClientConfig(&otherCA.Client))}, "certificate"},
		{"TLS to a plain port", mqtt.Options{Address: open.Address(), TLS: config(certs.ClientConfig(nil))}, "TLS"},
		{"plain to a TLS port", mqtt.Options{Address: secure.Address()}, "expects TLS"},
		{"settings cannot be read", mqtt.Options{Address: secure.Address(), TLS: func() (*tls.Config, error) { return nil, errors.New("ca.pem: no such file") }}, "ca.pem"},
		{"nobody answers", mqtt.Options{Address: closed, ConnectTimeout: time.Second}, "no MQTT broker answers"},
		{"unknown host", mqtt.Options{Address: "no-such-host.invalid:1883"}, "no-such-host.invalid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log, logger := newTestLog(t)
			tc.opts.Logger = logger
			tc.opts.RetryMax = 10 * time.Millisecond
			l := newLink(t, tc.opts)
			r, p := attach(t, l, id("company", "car"))
			stop := runLink(t, l)
			if tc.want == "" {
				waitUp(t, r)
				if !l.State().Up || !p.Publish([]byte("x"), link.Ack{}) {
					t.Error("the link is not usable")
				}
				return
			}
			testwait.Until(t, "several attempts fail", func() bool { return log.count("no connection to the broker") >= 3 })
			stop()
			if log.count("level=WARN", tc.want) == 0 {
				t.Errorf("no warning contains %q", tc.want)
			}
			// One reason, one warning; a server that closes may be seen in two ways.
			if n := log.count("level=WARN"); n > 3 || n > 1 && !strings.Contains(tc.name, "client certificate") && !strings.Contains(tc.name, "plain") {
				t.Errorf("%d warnings for one reason", n)
			}
			if strings.Contains(log.String(), "current time") {
				t.Error("the reason changes with the time, and so is a new one every second")
			}
			if strings.Contains(log.String(), "s3cret") {
				t.Error("the password was logged")
			}
			if s := l.State(); s.Up || !strings.Contains(s.LastError, tc.want) && !strings.Contains(tc.name, "client certificate") && !strings.Contains(tc.name, "plain") {
				t.Errorf("state: %+v", s)
			}
			if r.upCount() != 0 {
				t.Error("the car was told that the link is up")
			}
		})
	}
}

// A certificate that was replaced is used for the next connection.
func TestCertificateRotation(t *testing.T) {
	certs := brokertest.NewCerts(t)
	m := brokertest.Start(t, brokertest.Options{Certs: certs})
	var current atomic.Pointer[tls.Config]
	current.Store(certs.ClientConfig(&certs.ClientExpired))
	l := startLink(t, mqtt.Options{Address: m.Address(), TLS: func() (*tls.Config, error) { return current.Load(), nil }})
	r, _ := attach(t, l, id("company", "car"))
	testwait.Until(t, "the expired certificate is refused", func() bool { return l.State().LastError != "" })
	current.Store(certs.ClientConfig(&certs.Client))
	waitUp(t, r)
}

// Subscriptions that the broker refuses are named; the other cars are served.
func TestRefusedSubscription(t *testing.T) {
	b := startEmbedded(t, broker.Options{Users: []broker.User{{Name: "server", Password: "x", Prefix: "company/good"}}})
	log, logger := newTestLog(t)
	l := startLink(t, mqtt.Options{Address: b.Addr().String(), Username: "server", Password: "x", Logger: logger})
	good, _ := attach(t, l, id("company", "good"))
	bad, p := attach(t, l, id("company", "bad"))
	waitUp(t, good)
	testwait.Until(t, "the refusal is logged", func() bool {
		return log.count("level=WARN", "refuses a subscription", "company/bad/module_gateway") == 1
	})
	if bad.upCount() != 0 || p.Publish([]byte("x"), link.Ack{}) {
		t.Error("a car without subscription is said to be up")
	}
	if n := l.State().Connections[0].SubscriptionsRefused; n != 1 {
		t.Errorf("%d refused subscriptions counted", n)
	}
	if s := l.State(); s.Up || s.Refused != 1 || s.RefusedTopic != "company/bad/module_gateway" {
		t.Errorf("state: %+v", s)
	}
	p.Close()
	if s := l.State(); !s.Up || s.Refused != 0 {
		t.Errorf("state without the car: %+v", s)
	}
}

// A broker that ends the connection instead of answering a subscription, and one that
// answers and ends it then, are warned of once each.
func TestBrokerThatClosesAfterSubscribe(t *testing.T) {
	for name, tc := range map[string]struct {
		answer []byte // of SUBSCRIBE
		want   string
	}{
		"instead of an answer": {nil, "right after subscribing: rights?"},
		"after its answer":     {[]byte{0x90, 3, 0xf0, 0, 1}, "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var attempts atomic.Int32
			var serving sync.WaitGroup
			defer serving.Wait()
			defer listener.Close()
			serving.Go(func() {
				for n := 0; ; n++ {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					buf := make([]byte, 1024)
					_, _ = c.Read(buf)
					_, _ = c.Write([]byte{0x20, 2, 0, 0}) // CONNACK
					if _, err := c.Read(buf); err == nil && tc.answer != nil {
						answer := append([]byte(nil), tc.answer...)
						answer[2], answer[3] = buf[2], buf[3]
						_, _ = c.Write(answer)
					}
					if n%2 == 1 {
						_ = c.(*net.TCPConn).SetLinger(0) // a reset
					}
					c.Close()
					attempts.Add(1)
				}
			})
			log, logger := newTestLog(t)
			l := newLink(t, mqtt.Options{Address: listener.Addr().String(), Logger: logger, RetryMax: 5 * time.Millisecond})
			attach(t, l, id("company", "car"))
			stop := runLink(t, l)
			testwait.Until(t, "many attempts", func() bool { return attempts.Load() >= 12 })
			stop()
			if n := log.count("level=WARN"); n != 1 { // an end and a reset are one reason
				t.Errorf("%d warnings", n)
			}
			if log.count("level=WARN", tc.want) == 0 {
				t.Errorf("no warning contains %q", tc.want)
			}
		})
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	for _, tc := range []struct {
		change func(*mqtt.Options)
		want   string
	}{
		{func(o *mqtt.Options) { o.Address = "localhost" }, "host:port"},
		{func(o *mqtt.Options) { o.Address = "localhost:0" }, "port"},
		{func(o *mqtt.Options) { o.Address = "localhost:mqtt" }, "port"},
		{func(o *mqtt.Options) { o.Password = "x" }, "user name"},
		{func(o *mqtt.Options) { o.Username = strings.Repeat("x", 70000) }, "65535"},
		{func(o *mqtt.Options) { o.KeepAlive = time.Minute }, "keepalive"},
		{func(o *mqtt.Options) { o.Connections = -1 }, "connections"},
		{func(o *mqtt.Options) { o.Presence = "company/+" }, "wildcards"},
		{func(o *mqtt.Options) { o.MaxPayload = 1 << 30 }, "payloads"},
		{func(o *mqtt.Options) { o.Logger = nil }, "logger"},
	} {
		o := mqtt.Options{Address: "localhost:1883", Logger: testLogger(t)}
		tc.change(&o)
		if _, err := mqtt.New(o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v does not contain %q", err, tc.want)
		}
	}
}
