// Package acl writes the access rules that a broker needs so that each car has its own
// topics only and the server has all that it uses. The protocol knows a car by its topic
// alone (MSG-3), so these rules are what keeps one car from being another one.
//
// It may import fleet. It opens nothing.
package acl

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"external-server/internal/fleet"
)

// Broker is the product that reads the rules.
type Broker string

// Brokers whose rules can be written.
const (
	Mosquitto Broker = "mosquitto"
	VerneMQ   Broker = "vernemq"
	EMQX      Broker = "emqx"
	NATS      Broker = "nats"
)

// Brokers lists all of them.
func Brokers() []Broker { return []Broker{Mosquitto, VerneMQ, EMQX, NATS} }

// DefaultUser is the server's user at the broker when nothing names one.
const DefaultUser = "external_server"

// Fleet is what the rules are made from.
type Fleet struct {
	Company string
	Cars    []string // those that the configuration names
	AnyCar  bool     // "*": cars that it does not name are served too
	User    string   // of the server; empty: DefaultUser
	Cluster string   // its name; empty: one server
}

// ErrNoCars is the error for a broker that knows users by their names only, when no car
// is named.
var ErrNoCars = errors.New("the rules of this broker name each car, and no car is named")

// Write writes the rules; the same fleet gives the same text.
func Write(w io.Writer, broker Broker, f Fleet) error {
	if f.User == "" {
		f.User = DefaultUser
	}
	if err := f.check(); err != nil {
		return err
	}
	var text string
	switch broker {
	case Mosquitto:
		text = mosquittoHead + lines(f)
	case VerneMQ:
		text = vernemqHead + lines(f)
	case EMQX:
		text = emqx(f)
	case NATS:
		switch {
		case f.Cluster != "":
			return errors.New("NATS speaks only MQTT 3.1.1, and a cluster needs a broker of MQTT 5")
		case len(f.Cars) == 0:
			return ErrNoCars
		}
		text = nats(f)
	default:
		return fmt.Errorf("broker %q: expected one of %s", broker, names())
	}
	_, err := io.WriteString(w, text)
	return err
}

func names() string {
	var out []string
	for _, b := range Brokers() {
		out = append(out, string(b))
	}
	return strings.Join(out, ", ")
}

// check refuses what would change the meaning of a rule: names come from files.
func (f *Fleet) check() error {
	for _, name := range append([]string{f.Company}, f.Cars...) {
		if !fleet.ValidName(name) {
			return fmt.Errorf("name %q: expected a-z, 0-9 and _", name)
		}
	}
	f.Cars = slices.Clone(f.Cars)
	slices.Sort(f.Cars)
	f.Cars = slices.Compact(f.Cars)
	if strings.IndexFunc(f.User, func(r rune) bool { return !plain(r) }) >= 0 {
		return fmt.Errorf("the server's user %q: expected letters, digits and . _ - @ /, so that every broker reads the same name", f.User)
	}
	for _, car := range f.Cars {
		if f.User == f.car(car) {
			return fmt.Errorf("the server's user %q is also the user of a car; give the server a user of its own", f.User)
		}
	}
	if strings.IndexFunc(f.Cluster, func(r rune) bool { return !plain(r) || r == '/' }) >= 0 {
		return fmt.Errorf("the cluster's name %q: expected letters, digits and . _ - @", f.Cluster)
	}
	return nil
}

func plain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@/", r)
}

// car is the user name of a car: its client identifier in the protocol (CONN-9).
func (f *Fleet) car(name string) string { return f.Company + "/" + name }

// access says what may be done with a topic.
type access int

const (
	read access = 1 << iota
	write
	both = read | write
)

// right is one rule: topic is a filter of MQTT.
type right struct {
	access access
	topic  string
}

// server lists what the server does: the topics of its cars (CONN-1 to CONN-3), its
// presence, and what it sends to itself. `sniff` reads what the server writes.
func (f *Fleet) server() []right {
	cars := f.Company + "/+"
	out := []right{
		{read, cars + fleet.TopicFromGateway},
		{both, cars + fleet.TopicFromServer},
		{both, cars + fleet.TopicDisconnect},
		{both, f.Company + fleet.TopicPresence},
		{both, fleet.TopicsOfServer + "#"},
	}
	if f.Cluster != "" {
		out = append(out, right{both, fleet.TopicsOfClusters + f.Cluster + "/#"})
	}
	return out
}

// gateway lists what the gateway of one car does; base is company/car or what stands
// for it.
func gateway(base string) []right {
	return []right{
		{write, base + fleet.TopicFromGateway},
		{read, base + fleet.TopicFromServer},
		{read, base + fleet.TopicDisconnect},
	}
}
