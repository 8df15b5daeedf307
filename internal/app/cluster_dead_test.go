package app

import (
	"errors"
	"testing"

	"external-server/internal/cluster"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/testwait"
)

// A network that loses the connection of one shard among others, or those of all and takes new ones, is noticed
// by what the broker answers otherwise. The connections are made anew long before their keepalive ends, and
// no shard leaves: no gateway notices.
func TestDeadConnections(t *testing.T) {
	for name, others := range map[string][]int{"of one shard": {1, 2, 3}, "of all shards": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			names, cars := carsOfEach(2)
			c := newCrowd(t, cars)
			c.edges("a")
			a := c.start("a")
			c.open(a, 0)
			if others == nil {
				c.open(a, 1, 2, 3)
			}
			before := a.journals.InService()[0]
			c.relays["a"].Lose()
			if others != nil {
				c.open(a, others...)
			}
			testwait.Until(t, "the connection is lost", func() bool {
				return a.log.Has("has over others")
			})
			c.drive(names...)
			c.served(5)
			c.unnoticed()
			if a.journals.InService()[0] != before {
				t.Error("the shard was given up")
			}
		})
	}
}

// A replica whose broker has fallen silent a moment ago gives its shards away as one that knows it for long,
// whatever it was about to do. What it was opening it leaves to others.
func TestDrainMeetsSilentBroker(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	c.edges("a")
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2)
	c.open(b, 3)
	c.drive(names...)
	testwait.Until(t, "the replica is well", func() bool { return a.cluster.replica.Health() == nil })
	c.relays["a"].Set(badnetwork.Faults{Silent: true})
	opened := make(chan error, 1)
	go func() { opened <- a.cluster.replica.Open(t.Context(), 3, c.table.next()) }()
	for n := range 3 {
		testwait.Until(t, "the shard is given away", func() bool {
			err := a.cluster.replica.Close(t.Context(), n, b.member(), false)
			if err != nil && !errors.Is(err, cluster.ErrLeft) && !noTaker(err) {
				t.Fatalf("shard %d: %v", n, err)
			}
			return !noTaker(err)
		})
	}
	if err := <-opened; !errors.As(err, new(*cluster.NoBrokerError)) {
		t.Errorf("a shard that was being opened: %v", err)
	}
	c.open(b, 0, 1, 2)
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}
