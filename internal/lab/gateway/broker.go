package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"external-server/internal/fleet"
)

// Broker says how to reach an MQTT broker.
type Broker struct {
	Address  string      // host:port
	TLS      *tls.Config // nil: plain TCP
	Username string      // "": anonymous
	Password string
}

func (b Broker) check() error {
	host, port, err := net.SplitHostPort(b.Address)
	if err != nil {
		return fmt.Errorf("broker address %q: expected host:port: %w", b.Address, err)
	}
	if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("broker address %q: expected host:port with a port of 1 to 65535", b.Address)
	}
	if b.Username == "" && b.Password != "" {
		return errors.New("a broker password needs a user name")
	}
	return nil
}

// keepAlive of every connection (CONN-6, GW-8).
const keepAlive = 15 * time.Second

// topics of one car (CONN-1, CONN-2).
type topics struct {
	up           string // the gateway publishes to it (CONN-2)
	down         string // CONN-1
	notification string // CONN-3
}

func topicsOf(car fleet.CarID) topics {
	base := car.String()
	return topics{up: base + fleet.TopicFromGateway, down: base + fleet.TopicFromServer, notification: base + fleet.TopicDisconnect}
}

type outgoing struct {
	topic   string
	payload []byte
}
