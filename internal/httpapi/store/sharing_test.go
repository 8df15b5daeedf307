package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testwait"
)

// openSharedStore opens a store as the replica of that name does.
func openSharedStore(t *testing.T, store, name string, shards int) *sqlStore {
	t.Helper()
	s, err := OpenShared(t.Context(), store, Sharing{
		Replica: name, Shards: shards, ShardOf: func(car fleet.CarID) int { return numberOf(car) % shards },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.(*sqlStore)
}

// numberOf returns N of car_N.
func numberOf(car fleet.CarID) (n int) {
	_, _ = fmt.Sscanf(car.Car, "car_%d", &n) // others have 0
	return n
}

func mustClaim(t *testing.T, s *sqlStore, shard int, epoch int64) *State {
	t.Helper()
	state, err := s.Claim(t.Context(), shard, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func moved(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Fault == FaultMoved
}

// After a claim no transaction under an earlier epoch is made, of whatever kind, and none
// of a shard that was never claimed; other shards are served.
func TestSharedStoreChecksEpochs(t *testing.T) {
	name := sharedPostgres.Database(t)
	a, b := openSharedStore(t, name, "a", 4), openSharedStore(t, name, "b", 4)
	mustClaim(t, a, 1, 10)
	mustClaim(t, a, 2, 11)
	car2 := fleet.CarID{Company: "company", Car: "car_2"}
	apply(t, a, 100, statusPost(apitest.Car1, 100, apitest.Status(1, 1, "a", `1`)), statusPost(car2, 100, apitest.Status(1, 1, "a", `1`)))
	state := mustClaim(t, b, 1, 12)
	apitest.WantEqual(t, "what the next owner knows", fmt.Sprint(state.Last, state.Cars, len(state.Devices)), fmt.Sprint(map[fleet.CarID]int64{apitest.Car1: 100}, state.Cars, 1))
	batch := func(posts ...Post) error {
		return a.Apply(context.Background(), &Batch{StoredAt: 200, Posts: posts})
	}
	late := Post{Car: apitest.Car1, At: 200, Messages: []httpapi.Message{apitest.Status(1, 1, "a", `2`)}}
	err := batch(late, Post{Car: car2, At: 200, Messages: []httpapi.Message{apitest.Status(1, 1, "a", `2`)}})
	var fault *Error
	if !errors.As(err, &fault) || fmt.Sprintf("%s %v %v", fault.Fault, fault.Shards, fault.Reload) != "moved [1] false" {
		t.Fatalf("a late write: %v (%+v)", err, fault)
	}
	if err := batch(Post{Car: fleet.CarID{Company: "company", Car: "car_3"}, At: 200}); !moved(err) {
		t.Errorf("a shard that was never claimed: %v", err)
	}
	if err := a.Forget(t.Context(), []Device{{Car: apitest.Car1, Device: apitest.Status(1, 1, "a", ``).DeviceID}}); !moved(err) {
		t.Errorf("forget a device: %v", err)
	}
	if _, err := a.ForgetCars(t.Context(), []fleet.CarID{apitest.Car1}, 300); !moved(err) {
		t.Errorf("forget a car: %v", err)
	}
	if err := batch(Post{Car: car2, At: 200, Messages: []httpapi.Message{apitest.Status(1, 1, "a", `2`)}}); err != nil {
		t.Errorf("the shard that a still has: %v", err)
	}
	apitest.WantEqual(t, "stored of car 1", read(t, b, apitest.Car1, false, 0), "100:1")
	apitest.WantEqual(t, "stored of car 2", read(t, b, car2, false, 0), "100:1 200:2")
	for _, epoch := range []int64{11, 12} {
		if _, err := a.Claim(t.Context(), 1, epoch); !moved(err) || !strings.Contains(err.Error(), "replica b has epoch 12") {
			t.Errorf("claim with epoch %d: %v", epoch, err)
		}
	}
	mustClaim(t, b, 1, 12) // its own again
	mustClaim(t, a, 1, 13)
	if err := batch(late); err != nil {
		t.Errorf("claimed again: %v", err)
	}
}

// Two stores with the same epochs, which cannot be: the rows of the cars keep their
// timestamps rising all the same.
func TestSharedStoreKeepsTimestampsRising(t *testing.T) {
	name := sharedPostgres.Database(t)
	a, b := openSharedStore(t, name, "a", 1), openSharedStore(t, name, "a", 1)
	mustClaim(t, a, 0, 1)
	apply(t, a, 100, statusPost(apitest.Car1, 600, apitest.Status(1, 1, "a", `1`))) // by a clock that is 500 ms ahead
	mustClaim(t, b, 0, 1)
	post := Post{Car: apitest.Car1, At: 100, Messages: []httpapi.Message{apitest.Status(1, 1, "a", `2`)}}
	for _, at := range []int64{100, 600} {
		post.At = at
		err := b.Apply(context.Background(), &Batch{StoredAt: 100, Posts: []Post{post}})
		var fault *Error
		if !errors.As(err, &fault) || !fault.Reload {
			t.Fatalf("timestamp %d after 600: %v", at, err)
		}
		if _, err := b.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		state := mustClaim(t, b, 0, 1)
		apitest.WantEqual(t, "newest timestamp", state.Last[apitest.Car1], int64(600))
	}
	post.At = 601
	apply(t, b, 100, post)
	apitest.WantEqual(t, "stored", read(t, b, apitest.Car1, false, 0), "600:1 601:2")
}

// An owner that stands still in the middle of a transaction keeps its shard for about
// 2 s: then the database ends the transaction.
func TestSharedStoreOfAStoppedOwner(t *testing.T) {
	name := sharedPostgres.Database(t)
	a, b := openSharedStore(t, name, "a", 1), openSharedStore(t, name, "b", 1)
	mustClaim(t, a, 0, 1)
	for _, q := range []string{"BEGIN", "SELECT epoch FROM fleet_shards WHERE shard = 0 FOR SHARE"} {
		if _, err := a.writer.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Claim(t.Context(), 0, 2); AsError(err).Fault != FaultBusy {
		t.Fatalf("claim beside an open transaction: %v", err)
	}
	testwait.Until(t, "the next owner gets the shard", func() bool {
		_, err := b.Claim(t.Context(), 0, 2)
		return err == nil
	})
	if err := a.Apply(t.Context(), &Batch{Posts: []Post{{Car: apitest.Car1, At: 1}}}); err == nil {
		t.Error("the old owner goes on with its transaction")
	}
}

// A database of a server without cluster becomes that of a cluster, also of one with
// another number of shards, and back.
func TestSharedStoreFillsShards(t *testing.T) {
	name := sharedPostgres.Database(t)
	fill := func(at int64, cars ...int) {
		t.Helper()
		alone, err := Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = alone.Close() }()
		if _, err := alone.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, n := range cars {
			apply(t, alone, at, statusPost(fleet.CarID{Company: "company", Car: fmt.Sprint("car_", n)}, at, apitest.Status(1, 1, "a", `1`)))
		}
	}
	fill(100, 0, 1, 2, 3)
	for _, c := range []struct {
		shards int
		want   string
	}{{4, "[0 1 2 3]"}, {2, "[0 1 0 1]"}} {
		s := openSharedStore(t, name, "a", c.shards)
		got := []int{}
		err := s.rows(t.Context(), `SELECT shard FROM fleet_cars ORDER BY car`, func(scan func(...any) error) error {
			var n int
			defer func() { got = append(got, n) }()
			return scan(&n)
		})
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%d shards: %v (%v), want %s", c.shards, got, err, c.want)
		}
		_ = s.Close()
	}
	fill(200, 5)
	s := openSharedStore(t, name, "a", 2)
	state := mustClaim(t, s, 1, 1000)
	apitest.WantEqual(t, "cars of shard 1", len(state.Cars), 3)
}

// Replicas that start together on an empty database make the schema once.
func TestSharedStoresStartTogether(t *testing.T) {
	name := sharedPostgres.Database(t)
	errs := make(chan error, 6)
	for range cap(errs) {
		go func() {
			s, err := OpenShared(context.Background(), name, Sharing{Replica: "a", Shards: 4, ShardOf: func(fleet.CarID) int { return 0 }})
			if err == nil {
				err = s.Close()
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	conn, err := pgx.Connect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var version int
	if err := conn.QueryRow(t.Context(), `SELECT value FROM fleet_meta WHERE name = 'schema'`).Scan(&version); err != nil || version != len(postgresMigrations) {
		t.Errorf("schema %d (%v)", version, err)
	}
}
