// Package postgrestest starts a real PostgreSQL for tests, which can be stopped and started
// again.
//
// It may import the other packages below support, and nothing but tests may import it.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
	"external-server/internal/support/tied"
)

// Server is a database server of its own, in a temporary directory, reachable by a unix socket
// only. The zero value is one that starts when the first database is wanted.
type Server struct {
	once sync.Once
	err  error
	dir  string
	cmd  *exec.Cmd
	done chan error
	run  func() error

	mu sync.Mutex
	n  int
}

func (p *Server) start() error {
	bin, err := binaries()
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
	p.run = func() error { return p.serve(bin, attributes) }
	return p.run()
}

// serve starts the server and waits until it answers.
func (p *Server) serve(bin string, attributes *syscall.SysProcAttr) error {
	p.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", filepath.Join(p.dir, "data"), "-k", p.dir, "-c", "listen_addresses=")
	p.cmd.SysProcAttr, p.cmd.Dir = attributes, p.dir
	wait, err := tied.Start(p.cmd, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	p.done = make(chan error, 1)
	go func() { p.done <- wait() }()
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

// Halt ends the server in order; connections are closed.
func (p *Server) Halt() {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
	<-p.done
}

// Restart starts the server again after Halt.
func (p *Server) Restart() error { return p.run() }

// Close ends the server, if it was started, and removes what it has stored.
func (p *Server) Close() {
	if p.cmd != nil && p.cmd.Process != nil {
		p.Halt()
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}

func (p *Server) url(database string) string {
	return "postgres://postgres@/" + database + "?host=" + p.dir
}

// Database makes an empty database and returns its URL. Without PostgreSQL the test ends, see
// testneed.
func (p *Server) Database(t testing.TB) string {
	t.Helper()
	testneed.More(t, "PostgreSQL")
	if _, err := binaries(); err != nil {
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
	p.Exec(t, "CREATE DATABASE "+name)
	return p.url(name)
}

// Exec runs a statement as the owner of the server.
func (p *Server) Exec(t testing.TB, query string) {
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

func binaries() (string, error) {
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
