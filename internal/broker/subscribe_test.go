package broker_test

import (
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"external-server/internal/broker"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// answers are the topics of a client whose identifier is that of a car.
func answers(client string) []string {
	if strings.Count(client, "/") != 1 {
		return nil
	}
	return []string{client + "/answers", client + "/end"}
}

// A client whose connection is cut and that connects again by itself, as gateways do
// (GW-55), gets its messages although it does not subscribe.
func TestBrokerSubscribesClients(t *testing.T) {
	b, _ := start(t, broker.Options{Subscribe: answers})
	var open net.Conn
	connected, received := make(chan struct{}, 10), make(chan string, 10)
	o := paho.NewClientOptions().AddBroker("tcp://" + b.Addr().String()).SetClientID("company/car").
		SetAutoReconnect(true).SetMaxReconnectInterval(10 * time.Millisecond).SetCleanSession(true)
	o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		c, err := net.Dial("tcp", b.Addr().String())
		open = c
		return c, err
	})
	o.SetOnConnectHandler(func(paho.Client) { connected <- struct{}{} })
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { received <- string(m.Payload()) })
	client := paho.NewClient(o)
	if token := client.Connect(); !token.WaitTimeout(testwait.Patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer client.Disconnect(0)
	server := dial(t, b, brokertest.PeerOptions{})
	for range 3 {
		select {
		case <-connected:
		case <-time.After(testwait.Patience):
			t.Fatal("the client does not come back")
		}
		testwait.Until(t, "the broker has subscribed it", func() bool { return b.Stats().Subscriptions == 2 })
		publish(t, server, "company/car/answers", "hello")
		select {
		case m := <-received:
			if m != "hello" {
				t.Errorf("got %q", m)
			}
		case <-time.After(testwait.Patience):
			t.Fatal("the client is deaf")
		}
		if err := open.(*net.TCPConn).CloseRead(); err != nil { // as if the other side had
			t.Fatal(err)
		}
		testwait.Until(t, "the subscriptions of its connection end, or the client is back", func() bool {
			return b.Stats().Subscriptions == 0 || len(connected) > 0
		})
	}
}

// A message comes once though the client subscribes, too; a client gets no topic that
// its user may not use, and other clients get none.
func TestBrokerSubscribesOnlyWhatIsAllowed(t *testing.T) {
	users := append(carUsers(), broker.User{Name: "part", Password: "secret-5", Prefix: "company/car_2/end"})
	b, _ := start(t, broker.Options{Subscribe: answers, Users: users})
	server := dial(t, b, brokertest.PeerOptions{Username: "server", Password: "secret-1"})
	one := dial(t, b, brokertest.PeerOptions{Username: "one", Password: "secret-2", ClientID: "company/car_1"})
	part := dial(t, b, brokertest.PeerOptions{Username: "part", Password: "secret-5", ClientID: "company/car_2"})
	subscribe(t, one, "company/car_1/answers")
	for _, p := range []*brokertest.Peer{one, part, server} {
		if err := p.Ping(); err != nil { // it is complete
			t.Fatal(err)
		}
	}
	if n := b.Stats().Subscriptions; n != 2 {
		t.Errorf("%d subscriptions, expected the two of the first car", n)
	}
	publish(t, server, "company/car_1/answers", "hello")
	publish(t, server, "company/car_1/end", "of it")
	expect(t, one, "company/car_1/answers", "hello")
	expect(t, one, "company/car_1/end", "of it")
}
