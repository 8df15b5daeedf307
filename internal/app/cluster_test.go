package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/peer"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// A shard that is handed over takes its sessions along: no gateway notices, and the modules
// get every status once and in order.
func TestShardIsHandedOver(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(3)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	for n := range crowdShards {
		if err := a.cluster.replica.Close(t.Context(), n, b.member(), false); err != nil {
			t.Fatal(err)
		}
		c.open(b, n)
		c.served(2)
	}
	if len(a.Cars()) != 0 || len(b.Cars()) != len(names) {
		t.Errorf("a serves %d cars, b %d", len(a.Cars()), len(b.Cars()))
	}
	if err := b.cluster.replica.Close(t.Context(), 2, a.member(), false); err != nil { // and back
		t.Fatal(err)
	}
	c.open(a, 2)
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// A replica that does not take a shard leaves it where it is.
func TestHandOverIsRefused(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a := c.start("a")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	nobody := cluster.Member{Name: "b", Address: brokertest.FreeAddress(t)}
	for n := range crowdShards {
		if err := a.cluster.replica.Close(t.Context(), n, nobody, false); err == nil {
			t.Error("a shard was handed over to nobody")
		}
	}
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// The address of another replica that leads somewhere else, as a loopback address of another machine does, gets
// nothing: neither this replica itself nor a third one takes a shard that is meant for the other.
func TestHandOverToWrongAddress(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a, third := c.start("a"), c.start("third")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	for n, at := range []string{a.member().Address, third.member().Address} {
		err := a.cluster.replica.Close(t.Context(), n, cluster.Member{Name: "b", Address: at}, false)
		if peer.ReasonOf(err) != peer.Misled || !strings.Contains(err.Error(), "cluster.peer_address") {
			t.Errorf("shard %d was given to %s instead of b: %v", n, at, err)
		}
	}
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// A shard whose owner does not answer is taken over from the records at the broker. The
// owner, which lives, falls silent.
func TestShardIsTakenOver(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(3)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	for n := range crowdShards {
		c.open(b, n)
	}
	for range crowdShards {
		select {
		case <-a.chair.lost:
		case <-time.After(testwait.Patience):
			t.Fatal("the owner does not notice that it is none any more")
		}
	}
	c.served(5)
	c.unnoticed()
	if len(a.Cars()) != 0 || len(b.Cars()) != len(names) {
		t.Errorf("a serves %d cars, b %d", len(a.Cars()), len(b.Cars()))
	}
}

// An owner that comes back before anybody has taken its shards goes on from its own
// journals; when others have, it discards them.
func TestOwnerComesBack(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	a.stop() // alone: the sessions are suspended
	a = c.start("a")
	c.open(a, 0, 1, 2, 3)
	if !a.log.Has("this replica's journal") {
		t.Errorf("%s", a.log)
	}
	c.served(5)
	a.stop()
	c.open(b, 0, 1, 2, 3)
	c.served(5)
	a = c.start("a")
	if err := b.cluster.replica.Close(t.Context(), 1, a.member(), false); err != nil {
		t.Fatal(err)
	}
	c.open(a, 1)
	c.served(5)
	c.unnoticed()
}

// What modules had not taken when their replica ended is discarded, counted and told when another one has served the
// cars since: given now, it would overtake what is newer.
func TestStatusesOfAnEndedOwnerAreDiscarded(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	c.edit = func(cfg *config.Config) { cfg.Limits.Stop = time.Second }
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	c.account.stick(true)
	c.served(5) // the modules take none of these
	a.stop()    // alone as far as it knows
	c.account.stick(false)
	c.account.begin()
	c.open(b, 0, 1, 2, 3)
	c.served(5)
	a = c.start("a")
	for n := range crowdShards {
		if err := b.cluster.replica.Close(t.Context(), n, a.member(), false); err != nil {
			t.Fatal(err)
		}
		c.open(a, n)
	}
	if n := a.cluster.replica.State().Discarded; n < uint64(2*len(names)) || strings.Count(a.log.String(), "are discarded") != crowdShards {
		t.Errorf("%d statuses are discarded\n%s", n, a.log)
	}
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// A claim that had vanished and was taken again is announced, nothing else happens.
func TestEpochRises(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(1)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	stale := c.table.next()
	c.open(a, 0, 1, 2, 3)
	c.served(5)
	c.unnoticed()
	var err *cluster.StaleError
	testwait.Until(t, "the broker has the epoch", func() bool {
		return errors.As(b.cluster.replica.Open(t.Context(), 0, stale), &err)
	})
	b.hears(0, "a")
	a.stop()
	if answer, err := b.cluster.replica.Ask(t.Context(), 0); err != nil || answer.Serving {
		t.Errorf("%+v, %v", answer, err)
	}
}

// A car of "*" is found by the replica that looks for unknown cars, and served by the owner of
// its shard; another owner goes on with it.
func TestFoundCarInCluster(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, `{"*": {}}`)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1)
	c.open(b, 2, 3)
	c.table.change(func(v *cluster.View) { v.Scout = "a" })
	testwait.Until(t, "the scout is connected", func() bool { return len(a.link.State().Connections) == 3 && a.LinkUp() })
	names, _ := carsOfEach(2)
	c.drive(names...)
	if len(a.Cars()) != 4 || len(b.Cars()) != 4 {
		t.Errorf("a serves %d cars, b %d", len(a.Cars()), len(b.Cars()))
	}
	if err := a.cluster.replica.Close(t.Context(), 1, b.member(), false); err != nil {
		t.Fatal(err)
	}
	c.open(b, 1)
	c.table.change(func(v *cluster.View) { v.Scout = "b" })
	c.served(3)
	c.open(b, 0) // without a word of a
	c.served(3)
	c.unnoticed()
	testwait.Until(t, "b serves all", func() bool { return len(b.Cars()) == len(names) && len(a.Cars()) == 0 })
}

// Strangers who let unknown cars connect whose shards have no owner do not fill the log.
func TestFoundCarsWithoutOwnerAreLogged(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, `{"*": {}}`)
	a := c.start("a")
	for n := range 300 {
		a.cluster.replica.Elsewhere(fleet.CarID{Company: "company", Car: fmt.Sprint("car", n)}, []byte("a Connect"))
	}
	const late, many = "could not be handed to the owner", "more unknown cars connect"
	testwait.Until(t, "both are told", func() bool { return a.log.Has(late) && a.log.Has(many) })
	a.stop()
	if n := strings.Count(a.log.String(), late) + strings.Count(a.log.String(), many); n > 20 {
		t.Errorf("%d lines for 300 Connects", n)
	}
}

// A reload changes the cars of the shards that are served, and another replica follows with
// its own.
func TestReloadInCluster(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1)
	c.open(b, 2, 3)
	c.drive(names...)
	more, cars := carsOfEach(3)
	c.cars = cars
	for _, r := range []*sharer{a, b} {
		changes, err := r.Reload(t.Context(), c.load(r.name))
		if err != nil || len(changes.Added) != 2 || changes.Unchanged != 4 || len(changes.Removed) != 0 {
			t.Errorf("%s: %v, %v", r.name, changes, err)
		}
	}
	c.drive(slices.DeleteFunc(more, func(name string) bool { return slices.Contains(names, name) })...)
	c.unnoticed()
	if err := a.cluster.replica.Close(t.Context(), 1, b.member(), false); err != nil {
		t.Fatal(err)
	}
	c.open(b, 1)
	c.served(3)
	if len(a.Cars()) != 3 || len(b.Cars()) != 9 {
		t.Errorf("a serves %d cars, b %d", len(a.Cars()), len(b.Cars()))
	}
	c.unnoticed()
}

// A shard that comes while a reload is under way has the cars of the new configuration.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a := c.start("a")
	c.open(a, 0)
	more, cars := carsOfEach(3)
	c.cars = cars
	fresh := c.load("a")
	a.waits = &waits{step: time.Minute}
	made, err := a.roster.Prepare(t.Context(), fresh, a.waits.within)
	if err != nil {
		t.Fatal(err)
	}
	c.open(a, 1, 2, 3) // with the old one
	if len(a.Cars()) != len(names) {
		t.Errorf("%d cars", len(a.Cars()))
	}
	if err := a.roster.Apply(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	if len(a.Cars()) != len(more) {
		t.Errorf("%d cars", len(a.Cars()))
	}
	c.drive(more...)
}
