package core

import (
	"context"
	"fmt"
	"os"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
	"external-server/internal/support/postgrestest"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(killedStore); path != "" {
		fmt.Fprintln(os.Stderr, storeUntilKilled(path))
		os.Exit(1)
	}
	os.Exit(apitest.Main(m, &sharedPostgres))
}

// sharedPostgres starts when the first test wants a database.
var sharedPostgres postgrestest.Server

// forEachStore runs a test over SQLite and over a real PostgreSQL.
func forEachStore(t *testing.T, test func(t *testing.T, store string)) {
	apitest.ForEachStore(t, &sharedPostgres, test)
}

// openStore opens a store and loads it.
func openStore(t *testing.T, name string) store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// startCore runs a core with the store of that name until the test ends.
func startCore(t testing.TB, name string, o Options) *Core {
	t.Helper()
	c := beginCore(t, name, o)
	t.Cleanup(func() { endCore(t, c) })
	return c
}

// beginCore starts a core, which endCore ends.
func beginCore(t testing.TB, name string, o Options) *Core {
	t.Helper()
	o.Open = func(ctx context.Context) (store.Store, error) { return store.Open(ctx, name) }
	c := New(o)
	if err := c.Begin(context.Background()); err != nil {
		t.Fatal(err)
	}
	loaded(t, c)
	return c
}

// loaded waits until the store is loaded, which Begin does for 2 s only.
func loaded(t testing.TB, c *Core) {
	t.Helper()
	testwait.Until(t, "the store is loaded", func() bool { return c.NotReady() == nil })
}

// endCore ends a core when everything that it has accepted is stored.
func endCore(t testing.TB, c *Core) {
	t.Helper()
	c.Close()
	if err := c.CloseStore(); err != nil {
		t.Error(err)
	}
}

func postStatus(t testing.TB, api httpapi.API, car fleet.CarID, messages ...httpapi.Message) {
	t.Helper()
	if err := api.PostStatuses(context.Background(), car, messages); err != nil {
		t.Fatal(err)
	}
}

func postCommand(t testing.TB, api httpapi.API, car fleet.CarID, messages ...httpapi.Message) {
	t.Helper()
	if err := api.PostCommands(context.Background(), car, messages); err != nil {
		t.Fatal(err)
	}
}
