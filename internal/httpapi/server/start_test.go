package server

import (
	"strings"
	"testing"

	"external-server/internal/config"
	"external-server/internal/httpapi"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// TestStartTellsWhatNoWaitingMends: a damaged database or one of a newer program ends
// the start.
func TestStartTellsWhatNoWaitingMends(t *testing.T) {
	store := apitest.TempStore(t)
	start := func(store config.Secret) (*Server, error) {
		return New(t.Context(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: store}, store: testwait.Patience})
	}
	s, err := start(store)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	apitest.Inject(t, store.Reveal(), `UPDATE fleet_meta SET value = 99 WHERE name = 'schema'`)
	for _, store := range []config.Secret{store, config.NewSecret("sqlite:/proc/none/f.db"), config.NewSecret("mysql:x")} {
		s, err := start(store)
		if err == nil {
			_ = s.Shutdown(t.Context())
			t.Errorf("%s: started", store.Reveal())
		} else if !strings.HasPrefix(err.Error(), "http_api.store: ") {
			t.Error(err)
		}
	}
}

// TestPostgresComesUpLater: the server starts before the database, as at a boot, and is
// served as soon as that runs. Nothing it is given meanwhile is acknowledged.
func TestPostgresComesUpLater(t *testing.T) {
	url := sharedPostgres.Database(t)
	sharedPostgres.Halt()
	log := &testlog.Buffer{}
	s := startServer(t, Options{Config: config.HTTPAPI{Store: config.NewSecret(url)}, Logger: log.Logger()})
	testwait.Until(t, "the server knows that the database is not there", func() bool { // it has begun to look for it
		err := tryPost(s)
		return err != nil && strings.Contains(err.Error(), "not reachable")
	})
	for range 3 {
		if err := tryPost(s); httpapi.StatusOf(err) != 503 || !strings.Contains(err.Error(), "not reachable") {
			t.Errorf("post: %v", err)
		}
		code, body, header := request(t, s, "GET", "/v2/protocol/cars", "")
		if code != 503 || !strings.Contains(body, "not reachable") || header.Get("Retry-After") == "" {
			t.Errorf("GET: %d %s", code, body)
		}
	}
	if err := sharedPostgres.Restart(); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "posts are stored", func() bool { return tryPost(s) == nil })
	got, err := s.API().Statuses(t.Context(), apitest.Car1, httpapi.Query{})
	if err != nil || len(got) != 1 {
		t.Errorf("%d statuses, %v", len(got), err)
	}
	apitest.WantEqual(t, "log lines", []int{log.Count("the message store of the HTTP API failed"), log.Count("works again")}, []int{1, 1})
}
