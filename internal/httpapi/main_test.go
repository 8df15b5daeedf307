package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(killedStore); path != "" {
		fmt.Fprintln(os.Stderr, storeUntilKilled(path))
		os.Exit(1)
	}
	code := m.Run()
	sharedPostgres.stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var car1 = fleet.CarID{Company: "company", Car: "car_1"}

func tempStore(t testing.TB) config.Secret {
	return config.NewSecret("sqlite:" + filepath.Join(t.TempDir(), "fleet.db"))
}

// forEachStore runs a test over SQLite and over a real PostgreSQL.
func forEachStore(t *testing.T, test func(t *testing.T, store string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, tempStore(t).Reveal()) })
	t.Run("postgres", func(t *testing.T) { test(t, sharedPostgres.database(t)) })
}

func startServer(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Config.Listen == "" {
		o.Config.Listen = "127.0.0.1:0"
	}
	if o.Config.Store.IsZero() {
		o.Config.Store = tempStore(t)
	}
	s, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func testClient(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func status(module, typ int64, role, data string) Message {
	return Message{DeviceID: DeviceID{ModuleID: module, Type: typ, Role: role, Name: role + " name"},
		Payload: Payload{MessageType: TypeStatus, Encoding: EncodingJSON, Data: []byte(data)}}
}

func command(module, typ int64, role, data string) Message {
	m := status(module, typ, role, data)
	m.Payload.MessageType = TypeCommand
	return m
}

// logLines collects log records.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logLines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// postgresServer is a database server of its own, in a temporary directory,
// reachable by a unix socket only.
type postgresServer struct {
	once sync.Once
	err  error
	dir  string
	cmd  *exec.Cmd
	done chan error
	// restart starts the server again after halt.
	restart func() error

	mu sync.Mutex
	n  int
}

var sharedPostgres postgresServer

func (p *postgresServer) start() error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp("", "fleet-pg-"); err != nil {
		return err
	}
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 { // the database refuses to run as root
		owner, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(owner.Uid)
		gid, _ := strconv.Atoi(owner.Gid)
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(p.dir, uid, gid); err != nil {
			return err
		}
	}
	data := filepath.Join(p.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = attributes, p.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	p.restart = func() error { return p.run(bin, attributes) }
	return p.restart()
}

func (p *postgresServer) run(bin string, attributes *syscall.SysProcAttr) error {
	p.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", filepath.Join(p.dir, "data"), "-k", p.dir, "-c", "listen_addresses=")
	p.cmd.SysProcAttr, p.cmd.Dir = attributes, p.dir
	attributes.Pdeathsig = syscall.SIGQUIT
	started := make(chan error)
	p.done = make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal comes when the thread ends
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.done <- p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	deadline := time.Now().Add(testwait.Patience)
	for {
		conn, err := pgx.Connect(context.Background(), p.url("postgres"))
		if err == nil {
			return conn.Close(context.Background())
		}
		if time.Now().After(deadline) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (p *postgresServer) halt() {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
	<-p.done
}

func (p *postgresServer) stop() {
	if p.cmd != nil && p.cmd.Process != nil {
		p.halt()
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}

func (p *postgresServer) url(database string) string {
	return "postgres://postgres@/" + database + "?host=" + p.dir
}

// database makes an empty database.
func (p *postgresServer) database(t testing.TB) string {
	t.Helper()
	testneed.More(t, "PostgreSQL")
	if _, err := postgresBin(); err != nil {
		testneed.Missing(t, "PostgreSQL", "postgresql")
	}
	p.once.Do(func() { p.err = p.start() })
	if p.err != nil {
		t.Fatalf("start PostgreSQL: %v", p.err)
	}
	p.mu.Lock()
	p.n++
	name := fmt.Sprintf("test_%d", p.n)
	p.mu.Unlock()
	p.exec(t, "CREATE DATABASE "+name)
	return p.url(name)
}

func (p *postgresServer) exec(t testing.TB, query string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), p.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(context.Background(), query); err != nil {
		t.Fatal(err)
	}
}

func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		if path, err := exec.LookPath("postgres"); err == nil {
			return filepath.Dir(path), nil
		}
		return "", errors.New("PostgreSQL is not installed")
	}
	sort.Strings(found)
	return filepath.Dir(found[len(found)-1]), nil
}
