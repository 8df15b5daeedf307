package store_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"external-server/internal/httpapi"
	"external-server/internal/httpapi/core"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// faultCore runs a core whose log and store a test can reach.
func faultCore(t *testing.T, name string) (*core.Core, store.Store, *testlog.Buffer) {
	t.Helper()
	log := &testlog.Buffer{}
	opened, err := store.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	c := core.New(core.Options{Open: func(context.Context) (store.Store, error) { return opened, nil }, Logger: log.Logger()})
	if err := c.Begin(context.Background()); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the store is loaded", func() bool { return c.NotReady() == nil })
	t.Cleanup(func() {
		c.Close()
		if err := c.CloseStore(); err != nil {
			t.Error(err)
		}
	})
	if err := c.PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", `"before"`)}); err != nil {
		t.Fatal(err)
	}
	return c, opened, log
}

func tryPost(c *core.Core) error {
	return c.PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", `"during"`)})
}

// expectFault posts three times and expects one answer, one log line, readers
// that go on, and recovery after repair.
func expectFault(t *testing.T, c *core.Core, log *testlog.Buffer, code int, text string, fault store.Fault, repair func()) {
	t.Helper()
	for range 3 {
		err := tryPost(c)
		if httpapi.StatusOf(err) != code || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, expected %d with %q", err, code, text)
		}
	}
	if n := log.Count("the message store of the HTTP API failed"); n != 1 {
		t.Errorf("%d log lines, expected one", n)
	}
	if st := c.Stats(); st.StoreFault != fault || st.StoreFaults[fault] < 3 {
		t.Errorf("stats: %q, %v", st.StoreFault, st.StoreFaults)
	}
	got, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{})
	if err != nil || len(got) != 1 {
		t.Errorf("reading while nothing can be written: %d, %v", len(got), err)
	}
	repair()
	testwait.Until(t, "the store works again", func() bool { return tryPost(c) == nil })
	if got, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{}); err != nil || len(got) != 2 {
		t.Errorf("afterwards: %d statuses, %v; what was refused must not be stored", len(got), err)
	}
	if n := log.Count("works again"); n != 1 {
		t.Errorf("%d log lines about the recovery", n)
	}
	if st := c.Stats(); st.StoreFault != "" {
		t.Errorf("fault after recovery: %q", st.StoreFault)
	}
}

func TestSQLiteLockedByAnotherProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	c, _, log := faultCore(t, "sqlite:"+path)
	conn, err := apitest.OtherProgram(t, "sqlite:"+path).Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	expectFault(t, c, log, 503, "locked by another program", store.FaultBusy, func() {
		if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSQLiteReadOnly(t *testing.T) {
	c, opened, log := faultCore(t, apitest.TempStore(t).Reveal())
	store.OnWriter(t, opened, "PRAGMA query_only = 1")
	expectFault(t, c, log, 503, "cannot be written", store.FaultReadOnly, func() { store.OnWriter(t, opened, "PRAGMA query_only = 0") })
}

// TestSQLiteFull lets the database reach its limit of pages, which is what SQLite
// reports for a full disk.
func TestSQLiteFull(t *testing.T) {
	c, opened, log := faultCore(t, apitest.TempStore(t).Reveal())
	store.OnWriter(t, opened, "PRAGMA max_page_count = 1") // becomes the present size
	big := apitest.Status(1, 1, "r", `"`+strings.Repeat("x", 100_000)+`"`)
	if err := c.PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{big}); httpapi.StatusOf(err) != 503 {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{big}); httpapi.StatusOf(err) != 503 || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("error %v", err)
		}
	}
	if n := log.Count("no space left\\|database or disk is full"); n > 1 {
		t.Errorf("%d log lines", n)
	}
	store.OnWriter(t, opened, "PRAGMA max_page_count = 1073741823")
	if err := tryPost(c); err != nil {
		t.Error(err)
	}
	if st := c.Stats(); st.StoreFaults[store.FaultFull] != 3 || st.StoreFault != "" {
		t.Errorf("stats %v %q", st.StoreFaults, st.StoreFault)
	}
	if log.Count("fault=full") != 2 { // one for the fault, one for its end
		t.Errorf("log: %d lines name the fault", log.Count("fault=full"))
	}
}

// TestSQLiteDamagedFile overwrites the database while it is in use: requests get
// an error that says so, the process goes on.
func TestSQLiteDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	c, opened, log := faultCore(t, "sqlite:"+path)
	// More than fits the caches.
	for i := range 40 {
		if err := c.PostStatuses(t.Context(), apitest.Car1, []httpapi.Message{apitest.Status(1, int64(i), "r", `"`+strings.Repeat("x", 200_000)+`"`)}); err != nil {
			t.Fatal(err)
		}
	}
	store.OnWriter(t, opened, "PRAGMA wal_checkpoint(TRUNCATE)")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("damaged!", int(info.Size()/8))), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{}); httpapi.StatusOf(err) != 500 || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("read: %v", err)
		}
	}
	if n := log.Count("operation=read fault=corrupt"); n != 1 {
		t.Errorf("%d log lines", n)
	}
	if cars, err := c.Cars(context.Background(), httpapi.Query{}); err != nil || len(cars) != 1 {
		t.Errorf("cars: %v, %v", cars, err)
	}
}

// TestPostgresConnectionsLost ends the server's connections while posts come: the
// refused ones are said to be, none of the acknowledged ones is lost.
func TestPostgresConnectionsLost(t *testing.T) {
	url := store.Postgres.Database(t)
	c, _, log := faultCore(t, url)
	database := url[strings.LastIndex(url[:strings.Index(url, "?")], "/")+1 : strings.Index(url, "?")]
	var acknowledged atomic.Int64
	acknowledged.Store(1)
	last := int64(0)
	for round := range 3 {
		store.Postgres.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"'")
		testwait.Until(t, "posts are stored again", func() bool {
			err := tryPost(c)
			if err == nil {
				acknowledged.Add(1)
			} else if code := httpapi.StatusOf(err); code != 503 {
				t.Fatalf("round %d: %v", round, err)
			}
			return err == nil
		})
		testwait.Until(t, "statuses can be read again", func() bool {
			got, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{Since: last + 1})
			if err == nil && len(got) > 0 {
				last = got[len(got)-1].Timestamp
			}
			return err == nil
		})
	}
	got, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{})
	if err != nil || int64(len(got)) < acknowledged.Load() {
		t.Errorf("%d statuses, %d acknowledged, %v", len(got), acknowledged.Load(), err)
	}
	if log.Count("works again") == 0 {
		t.Error("the recovery was not logged")
	}
}

// TestPostgresStopsAndReturns stops the database server as a whole.
func TestPostgresStopsAndReturns(t *testing.T) {
	c, _, log := faultCore(t, store.Postgres.Database(t))
	store.Postgres.Halt()
	for range 3 {
		if err := tryPost(c); httpapi.StatusOf(err) != 503 || !strings.Contains(err.Error(), "not reachable") {
			t.Errorf("post: %v", err)
		}
		if _, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{}); httpapi.StatusOf(err) != 503 {
			t.Errorf("read: %v", err)
		}
	}
	if n := log.Count("operation=write fault=unavailable"); n != 1 {
		t.Errorf("%d log lines", n)
	}
	if err := store.Postgres.Restart(); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "posts are stored again", func() bool { return tryPost(c) == nil })
	got, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{})
	if err != nil || len(got) != 2 || string(got[0].Payload.Data) != `"before"` {
		t.Errorf("%d statuses, %v", len(got), err)
	}
}
