package library

import (
	"log/slog"
	"net"
	"net/url"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"external-server/internal/broker"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// A client whose connection is cut and that connects again by itself, as gateways do
// (CONN-4, GW-55), gets its messages although it does not subscribe.
func TestBrokerSubscribesClients(t *testing.T) {
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Subscribe: func(client string) []string {
		if client == "server" {
			return nil
		}
		return []string{client + "/answers", client + "/end"}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
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
	server, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String(), ClientID: "server"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for range 3 {
		select {
		case <-connected:
		case <-time.After(testwait.Patience):
			t.Fatal("the client does not come back")
		}
		testwait.Until(t, "the broker has subscribed it", func() bool { return b.Stats().Subscriptions == 2 })
		if err := server.Publish("company/car/answers", []byte("hello"), false); err != nil {
			t.Fatal(err)
		}
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
