package broker_test

import (
	"strings"
	"testing"

	"external-server/internal/broker"
	"external-server/internal/support/brokertest"
)

// answers are the topics of a client whose identifier is that of a car.
func answers(client string) []string {
	if strings.Count(client, "/") != 1 {
		return nil
	}
	return []string{client + "/answers", client + "/end"}
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
