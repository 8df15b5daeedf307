package server

import (
	"context"
	"net/http"
	"os"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/apitest"
	"external-server/internal/support/postgrestest"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { os.Exit(apitest.Main(m, &sharedPostgres)) }

// sharedPostgres starts when the first test wants a database.
var sharedPostgres postgrestest.Server

// forEachStore runs a test over SQLite and over a real PostgreSQL.
func forEachStore(t *testing.T, test func(t *testing.T, store string)) {
	apitest.ForEachStore(t, &sharedPostgres, test)
}

// postStatus posts statuses of a car.
func postStatus(t testing.TB, api httpapi.API, car fleet.CarID, messages ...httpapi.Message) {
	t.Helper()
	if err := api.PostStatuses(context.Background(), car, messages); err != nil {
		t.Fatal(err)
	}
}

// tryPost posts one status and returns the error.
func tryPost(s *Server) error {
	return s.API().PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", `"during"`)})
}

// startServer runs a server until the test ends.
func startServer(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Config.Listen == "" {
		o.Config.Listen = "127.0.0.1:0"
	}
	if o.Config.Store.IsZero() {
		o.Config.Store = apitest.TempStore(t)
	}
	o.store = testwait.Patience
	s, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	apitest.Run(t, s.Run)
	return s
}

func testClient(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
