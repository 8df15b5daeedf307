// Package etcdtest starts a real etcd for tests: one member on loopback, which can be
// stopped, frozen, killed, started again and set back to an earlier state.
//
// It may import the other packages below support, and nothing but tests may import it.
package etcdtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
	"external-server/internal/support/tied"
)

// Variable is the environment variable with the path of etcd; `make test` sets it.
const Variable = "ETCD_SERVER"

// Options of Start. The zero value is an etcd without TLS.
type Options struct {
	// CertFile and KeyFile make etcd speak TLS; clients then present a certificate that
	// the authority in ClientCAFile signed, unless that is empty.
	CertFile, KeyFile, ClientCAFile string
	Flags                           []string // more of them
}

// Etcd is a running etcd. Its methods fail the test instead of returning errors.
type Etcd struct {
	t      testing.TB
	path   string
	opts   Options
	dir    string // with the folder data
	client string // host:port
	peer   string
	health string
	log    testlog.Buffer
	cmd    *exec.Cmd
	done   chan struct{} // closed when cmd has ended
	frozen bool
}

// Path returns where the etcd is that `make etcd` builds; a test without it ends, see
// testneed.
func Path(t testing.TB) string {
	t.Helper()
	return testneed.Built(t, "etcd", Variable, "build/etcd", "make etcd")
}

// Start runs an etcd on free loopback ports until the test ends.
func Start(t testing.TB, opts Options) *Etcd {
	t.Helper()
	e := &Etcd{t: t, path: Path(t), opts: opts, dir: t.TempDir()}
	t.Cleanup(e.end)
	// Another process may take a free port before etcd does.
	for range 5 {
		e.client, e.peer, e.health = brokertest.FreeAddress(t), brokertest.FreeAddress(t), brokertest.FreeAddress(t)
		if e.start() {
			return e
		}
	}
	t.Fatalf("etcd did not start:\n%s", e.log.String())
	return nil
}

// Secure makes etcd demand a user, and one that may read and write what the cluster of that
// name needs; settings are those of an operator's connection, nil without TLS.
func (e *Etcd) Secure(settings *tls.Config, cluster, user, password string) {
	e.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.URL()}, TLS: settings, DialTimeout: testwait.Patience, Logger: zap.NewNop()})
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), testwait.Patience)
	defer cancel()
	prefix := "/external-server/" + cluster + "/"
	for _, step := range []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", "planted-root"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.RoleAdd(ctx, "fleet"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "fleet", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := c.UserAdd(ctx, user, password); return err },
		func() error { _, err := c.UserGrantRole(ctx, user, "fleet"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			e.t.Fatal(err)
		}
	}
}

// URL is what a client connects to.
func (e *Etcd) URL() string { return e.scheme() + "://" + e.client }

// Address is host:port of URL.
func (e *Etcd) Address() string { return e.client }

// PID is the number of etcd's process.
func (e *Etcd) PID() int { return e.cmd.Process.Pid }

// Log is what etcd has written so far.
func (e *Etcd) Log() string { return e.log.String() }

func (e *Etcd) scheme() string {
	if e.opts.CertFile != "" {
		return "https"
	}
	return "http"
}

func (e *Etcd) data() string { return filepath.Join(e.dir, "data") }

// start runs etcd and reports whether it serves.
func (e *Etcd) start() bool {
	peer := "http://" + e.peer
	args := []string{
		"--data-dir", e.data(), "--listen-client-urls", e.URL(), "--advertise-client-urls", e.URL(),
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		"--listen-metrics-urls", "http://" + e.health, "--log-level", "warn",
		"--unsafe-no-fsync", // the tests do not end the machine
	}
	if e.opts.CertFile != "" {
		args = append(args, "--cert-file", e.opts.CertFile, "--key-file", e.opts.KeyFile)
	}
	if e.opts.ClientCAFile != "" {
		args = append(args, "--trusted-ca-file", e.opts.ClientCAFile, "--client-cert-auth")
	}
	e.cmd = exec.Command(e.path, append(args, e.opts.Flags...)...)
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	wait, err := tied.Start(e.cmd, syscall.SIGKILL)
	if err != nil {
		e.t.Fatalf("etcd: %v", err)
	}
	done := make(chan struct{})
	e.done = done
	go func() {
		_ = wait() // seen by those who wait for done
		close(done)
	}()
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(testwait.Patience); time.Now().Before(deadline); {
		select {
		case <-e.done:
			return false
		case <-time.After(10 * time.Millisecond):
		}
		answer, err := client.Get("http://" + e.health + "/health")
		if err != nil {
			continue
		}
		answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return true
		}
	}
	_ = e.cmd.Process.Kill() // it may have ended
	<-e.done
	return false
}

func (e *Etcd) signal(s syscall.Signal) {
	if err := e.cmd.Process.Signal(s); err != nil {
		e.t.Fatalf("signal %v to etcd: %v", s, err)
	}
}

// Freeze stops the process; it takes and answers nothing.
func (e *Etcd) Freeze() { e.signal(syscall.SIGSTOP); e.frozen = true }

// Thaw lets it go on.
func (e *Etcd) Thaw() { e.signal(syscall.SIGCONT); e.frozen = false }

// Kill ends etcd at once; it keeps what it had written.
func (e *Etcd) Kill() { e.signal(syscall.SIGKILL); <-e.done }

// Stop ends etcd in order.
func (e *Etcd) Stop() { e.signal(syscall.SIGTERM); <-e.done }

// Restart starts an etcd that was ended, with what it had.
func (e *Etcd) Restart() {
	e.t.Helper()
	if !e.start() {
		e.t.Fatalf("etcd did not start again:\n%s", e.log.String())
	}
}

// Backup keeps a copy of what etcd has for Restore. etcd is away for a moment.
func (e *Etcd) Backup() {
	e.t.Helper()
	e.Stop()
	if err := os.CopyFS(filepath.Join(e.dir, "backup"), os.DirFS(e.data())); err != nil {
		e.t.Fatal(err)
	}
	e.Restart()
}

// Restore sets etcd back to the Backup. etcd is away for a moment.
func (e *Etcd) Restore() {
	e.t.Helper()
	e.Kill()
	if err := os.RemoveAll(e.data()); err != nil {
		e.t.Fatal(err)
	}
	if err := os.CopyFS(e.data(), os.DirFS(filepath.Join(e.dir, "backup"))); err != nil {
		e.t.Fatal(err)
	}
	e.Restart()
}

// end kills etcd after the test.
func (e *Etcd) end() {
	if e.cmd == nil || e.cmd.Process == nil {
		return
	}
	select {
	case <-e.done:
		return
	default:
	}
	if err := e.cmd.Process.Kill(); err != nil {
		e.t.Log(fmt.Errorf("etcd: %w", err))
	}
	<-e.done
}
