package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"external-server/internal/lab/freeport"
	"external-server/internal/support/tied"
)

// etcdVariable is the environment variable with the path of etcd.
const etcdVariable = "ETCD_SERVER"

// etcdProgram returns the path of etcd, "" if there is none.
func etcdProgram() string {
	for _, name := range []string{os.Getenv(etcdVariable), filepath.Join("build", "etcd"), "etcd"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// etcd is one that a benchmark has started, with one member and the defaults that users have:
// it waits for its disk.
type etcd struct {
	url, metrics string
	dir          string
	cmd          *exec.Cmd
	done         chan struct{}
	client       *clientv3.Client
}

func startEtcd(ctx context.Context) (*etcd, error) {
	path := etcdProgram()
	if path == "" {
		return nil, errors.New("etcd was not found: 'make etcd' builds it; name another one in the variable " + etcdVariable)
	}
	dir, err := os.MkdirTemp("", "external-server-bench-")
	if err != nil {
		return nil, err
	}
	free, err := freeport.Addresses(3)
	if err != nil {
		return nil, err
	}
	e := &etcd{url: "http://" + free[0], metrics: "http://" + free[2], dir: dir, done: make(chan struct{})}
	peer := "http://" + free[1]
	e.cmd = exec.Command(path, "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", e.url, "--advertise-client-urls", e.url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--listen-metrics-urls", e.metrics, "--log-level", "error")
	wait, err := tied.Start(e.cmd, syscall.SIGKILL)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() {
		_ = wait() // seen by those who wait for done
		close(e.done)
	}()
	e.client, err = clientv3.New(clientv3.Config{Endpoints: []string{e.url}, Logger: zap.NewNop()})
	for err == nil {
		asked, cancel := context.WithTimeout(ctx, time.Second)
		_, fault := e.client.Get(asked, "/")
		cancel()
		if fault == nil {
			return e, nil
		}
		select {
		case <-e.done:
			err = errors.New("etcd has ended at once")
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	e.stop()
	return nil, err
}

func (e *etcd) stop() {
	if e.client != nil {
		_ = e.client.Close() // nothing is lost with it
	}
	_ = e.cmd.Process.Kill() // it may have ended
	<-e.done
	_ = os.RemoveAll(e.dir)
}

// served is the number of shards that have an owner that serves them.
func (e *etcd) served(ctx context.Context) (int, error) {
	got, err := e.client.Get(ctx, "/external-server/"+company+"/shards/", clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	n := 0
	for _, kv := range got.Kvs {
		if strings.Contains(string(kv.Value), `"serving"`) {
			n++
		}
	}
	return n, nil
}

// etcdLoad is what etcd has done since its start.
type etcdLoad struct {
	writes         float64 // revisions
	received, sent float64 // bytes from and to clients
	proposals      float64 // entries of its log: writes and signs of life
	cpu            time.Duration
	keys           int64
	at             time.Time
	databaseOnDisk float64 // bytes
}

func (e *etcd) load(ctx context.Context) (etcdLoad, error) {
	out := etcdLoad{at: time.Now()}
	got, err := e.client.Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return out, err
	}
	out.writes, out.keys = float64(got.Header.Revision), got.Count
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.metrics+"/metrics", nil)
	if err != nil {
		return out, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return out, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := readAll(answer.Body)
	if err != nil {
		return out, err
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		x, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "etcd_network_client_grpc_received_bytes_total":
			out.received = x
		case "etcd_network_client_grpc_sent_bytes_total":
			out.sent = x
		case "etcd_server_proposals_committed_total":
			out.proposals = x
		case "etcd_mvcc_db_total_size_in_bytes":
			out.databaseOnDisk = x
		}
	}
	u, err := usageOf(e.cmd.Process.Pid)
	out.cpu = u.cpu
	return out, err
}

// since says what came between two looks, per second where that says more.
func (e etcdLoad) since(before etcdLoad) map[string]float64 {
	seconds := e.at.Sub(before.at).Seconds()
	return map[string]float64{
		"writes": e.writes - before.writes, "proposals": (e.proposals - before.proposals) / seconds, "etcdcpu": 100 * (e.cpu - before.cpu).Seconds() / seconds,
		"received": (e.received - before.received) / seconds / 1e3, "sent": (e.sent - before.sent) / seconds / 1e3, "keys": float64(e.keys), "db": e.databaseOnDisk / 1e6,
	}
}

// waitServed returns when all shards are served.
func (e *etcd) waitServed(ctx context.Context, shards int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		n, err := e.served(ctx)
		if err != nil {
			return fmt.Errorf("%d of %d shards are served: %w", n, shards, err)
		}
		if n == shards {
			return nil
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d shards are served: %w", n, shards, err)
		}
	}
}
