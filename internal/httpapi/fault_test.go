package httpapi

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"external-server/internal/config"
	"external-server/internal/support/testwait"
)

// faultServer is a server whose log and store a test can reach.
func faultServer(t *testing.T, store string) (*Server, *sqlStore, *logLines) {
	t.Helper()
	log := &logLines{}
	s := startServer(t, Options{Config: config.HTTPAPI{Store: config.NewSecret(store)}, Logger: log.logger()})
	postStatus(t, s.API(), car1, status(1, 1, "r", `"before"`))
	return s, s.core.store.(*sqlStore), log
}

// inject runs a statement on the writing connection between two transactions.
func inject(t *testing.T, s *sqlStore, query string) {
	t.Helper()
	if _, err := s.writer.ExecContext(context.Background(), query); err != nil {
		t.Fatal(err)
	}
}

func tryPost(s *Server) error {
	return s.API().PostStatuses(context.Background(), car1, []Message{status(1, 1, "r", `"during"`)})
}

// expectFault posts three times and expects one answer, one log line, readers
// that go on, and recovery after repair.
func expectFault(t *testing.T, s *Server, log *logLines, code int, text string, fault StoreFault, repair func()) {
	t.Helper()
	for range 3 {
		err := tryPost(s)
		if StatusOf(err) != code || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, expected %d with %q", err, code, text)
		}
	}
	if n := log.count("the message store of the HTTP API failed"); n != 1 {
		t.Errorf("%d log lines, expected one", n)
	}
	if st := s.Stats(); st.StoreFault != fault || st.StoreFaults[fault] < 3 {
		t.Errorf("stats: %q, %v", st.StoreFault, st.StoreFaults)
	}
	got, err := s.API().Statuses(context.Background(), car1, Query{})
	if err != nil || len(got) != 1 {
		t.Errorf("reading while nothing can be written: %d, %v", len(got), err)
	}
	repair()
	testwait.Until(t, "the store works again", func() bool { return tryPost(s) == nil })
	if got, err := s.API().Statuses(context.Background(), car1, Query{}); err != nil || len(got) != 2 {
		t.Errorf("afterwards: %d statuses, %v; what was refused must not be stored", len(got), err)
	}
	if n := log.count("works again"); n != 1 {
		t.Errorf("%d log lines about the recovery", n)
	}
	if st := s.Stats(); st.StoreFault != "" {
		t.Errorf("fault after recovery: %q", st.StoreFault)
	}
}

func TestSQLiteLockedByAnotherProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	s, _, log := faultServer(t, "sqlite:"+path)
	other, err := sql.Open("sqlite", sqliteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	conn, err := other.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	expectFault(t, s, log, 503, "locked by another program", FaultBusy, func() {
		if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSQLiteReadOnly(t *testing.T) {
	s, store, log := faultServer(t, tempStore(t).Reveal())
	inject(t, store, "PRAGMA query_only = 1")
	expectFault(t, s, log, 503, "cannot be written", FaultReadOnly, func() { inject(t, store, "PRAGMA query_only = 0") })
}

// TestSQLiteFull lets the database reach its limit of pages, which is what SQLite
// reports for a full disk.
func TestSQLiteFull(t *testing.T) {
	s, store, log := faultServer(t, tempStore(t).Reveal())
	inject(t, store, "PRAGMA max_page_count = 1") // becomes the present size
	big := status(1, 1, "r", `"`+strings.Repeat("x", 100_000)+`"`)
	if err := s.API().PostStatuses(context.Background(), car1, []Message{big}); StatusOf(err) != 503 {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.API().PostStatuses(context.Background(), car1, []Message{big}); StatusOf(err) != 503 || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("error %v", err)
		}
	}
	if n := log.count("no space left\\|database or disk is full"); n > 1 {
		t.Errorf("%d log lines", n)
	}
	inject(t, store, "PRAGMA max_page_count = 1073741823")
	if err := tryPost(s); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.StoreFaults[FaultFull] != 3 || st.StoreFault != "" {
		t.Errorf("stats %v %q", st.StoreFaults, st.StoreFault)
	}
	if log.count("fault=full") != 2 { // one for the fault, one for its end
		t.Errorf("log: %d lines name the fault", log.count("fault=full"))
	}
}

// TestSQLiteDamagedFile overwrites the database while it is in use: requests get
// an error that says so, the process goes on.
func TestSQLiteDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	s, store, log := faultServer(t, "sqlite:"+path)
	// More than fits the caches.
	for i := range 40 {
		postStatus(t, s.API(), car1, status(1, int64(i), "r", `"`+strings.Repeat("x", 200_000)+`"`))
	}
	inject(t, store, "PRAGMA wal_checkpoint(TRUNCATE)")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("damaged!", int(info.Size()/8))), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.API().Statuses(context.Background(), car1, Query{}); StatusOf(err) != 500 || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("read: %v", err)
		}
	}
	if n := log.count("operation=read fault=corrupt"); n != 1 {
		t.Errorf("%d log lines", n)
	}
	if cars, err := s.API().Cars(context.Background(), Query{}); err != nil || len(cars) != 1 {
		t.Errorf("cars: %v, %v", cars, err)
	}
}

// TestOneBadPostDoesNotHarmOthers: a post that the database refuses fails alone.
func TestOneBadPostDoesNotHarmOthers(t *testing.T) {
	s, store, _ := faultServer(t, tempStore(t).Reveal())
	inject(t, store, `CREATE TRIGGER refuse BEFORE INSERT ON fleet_messages WHEN NEW.role = 'bad' BEGIN SELECT RAISE(ABORT, 'refused'); END`)
	var posts []*post
	for _, role := range []string{"good_1", "bad", "good_2"} {
		posts = append(posts, &post{car: car1, messages: []Message{status(1, 1, role, `{}`)}, result: make(chan error, 1)})
	}
	s.core.close() // the test takes the writer's place
	if s.core.writeBatch(posts) {
		t.Error("the store was given up")
	}
	for i, want := range []int{0, 500, 0} {
		if got := StatusOf(<-posts[i].result); got != want {
			t.Errorf("post %d: %d, expected %d", i, got, want)
		}
	}
}

// TestPostgresConnectionsLost ends the server's connections while posts come: the
// refused ones are said to be, none of the acknowledged ones is lost.
func TestPostgresConnectionsLost(t *testing.T) {
	url := sharedPostgres.Database(t)
	s, _, log := faultServer(t, url)
	database := url[strings.LastIndex(url[:strings.Index(url, "?")], "/")+1 : strings.Index(url, "?")]
	var acknowledged atomic.Int64
	acknowledged.Store(1)
	last := int64(0)
	for round := range 3 {
		sharedPostgres.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"'")
		testwait.Until(t, "posts are stored again", func() bool {
			err := tryPost(s)
			if err == nil {
				acknowledged.Add(1)
			} else if code := StatusOf(err); code != 503 {
				t.Fatalf("round %d: %v", round, err)
			}
			return err == nil
		})
		testwait.Until(t, "statuses can be read again", func() bool {
			got, err := s.API().Statuses(context.Background(), car1, Query{Since: last + 1})
			if err == nil && len(got) > 0 {
				last = got[len(got)-1].Timestamp
			}
			return err == nil
		})
	}
	got, err := s.API().Statuses(context.Background(), car1, Query{})
	if err != nil || int64(len(got)) < acknowledged.Load() {
		t.Errorf("%d statuses, %d acknowledged, %v", len(got), acknowledged.Load(), err)
	}
	if log.count("works again") == 0 {
		t.Error("the recovery was not logged")
	}
}

// TestPostgresStopsAndReturns stops the database server as a whole.
func TestPostgresStopsAndReturns(t *testing.T) {
	s, _, log := faultServer(t, sharedPostgres.Database(t))
	sharedPostgres.Halt()
	for range 3 {
		if err := tryPost(s); StatusOf(err) != 503 || !strings.Contains(err.Error(), "not reachable") {
			t.Errorf("post: %v", err)
		}
		if _, err := s.API().Statuses(context.Background(), car1, Query{}); StatusOf(err) != 503 {
			t.Errorf("read: %v", err)
		}
	}
	if n := log.count("operation=write fault=unavailable"); n != 1 {
		t.Errorf("%d log lines", n)
	}
	if err := sharedPostgres.Restart(); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "posts are stored again", func() bool { return tryPost(s) == nil })
	got, err := s.API().Statuses(context.Background(), car1, Query{})
	if err != nil || len(got) != 2 || string(got[0].Payload.Data) != `"before"` {
		t.Errorf("%d statuses, %v", len(got), err)
	}
}

// TestKilledServerLosesNothingAcknowledged kills a process while it stores and
// looks for everything it had acknowledged.
func TestKilledServerLosesNothingAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), killedStore+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for lines := bufio.NewScanner(out); lines.Scan(); acknowledged++ {
		if acknowledged == 300 {
			_ = child.Process.Kill() // what it writes until it is dead counts as well
		}
	}
	_ = child.Wait()
	if acknowledged < 300 {
		t.Fatalf("the process ended after %d posts", acknowledged)
	}
	s := startServer(t, Options{Config: config.HTTPAPI{Store: config.NewSecret("sqlite:" + path)}})
	got, err := s.API().Statuses(context.Background(), car1, Query{})
	if err != nil || len(got) < acknowledged {
		t.Errorf("%d statuses stored, %d acknowledged, %v", len(got), acknowledged, err)
	}
	postCommand(t, s.API(), car1, command(1, 1, "r", `{}`)) // the device is still known
}

// killedStore is the variable that turns the test program into a server that
// stores until it is killed.
const killedStore = "FLEET_TEST_KILLED_STORE"

func storeUntilKilled(path string) error {
	s, err := New(context.Background(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: config.NewSecret("sqlite:" + path)}})
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		if err := s.API().PostStatuses(context.Background(), car1, []Message{status(1, 1, "r", fmt.Sprint("[", n, "]"))}); err != nil {
			return err
		}
		fmt.Println(n)
	}
}
