package carrier

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"external-server/internal/cluster/fence"
	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/etcdtest"
)

// way is one way to leave records.
type way interface {
	// put leaves a record; it returns when what the record describes may be written. Beside
	// it sends a message to the car over the same connection as a server does.
	put(ctx context.Context, car int, record []byte) error
	// settle waits until everything is stored.
	settle(ctx context.Context) error
	pid() int
}

// recordBytes is the size of a record with two devices and one command.
const recordBytes = 300

func carID(n int) fleet.CarID { return fleet.CarID{Company: "company", Car: "car" + strconv.Itoa(n)} }

// keys are records in etcd.
type keys struct {
	server *etcdtest.Etcd
	client *clientv3.Client
	epoch  int64
}

const shardKey = "/external-server/test/shards/1"

// newKeys starts etcd; sync: it waits for the disk, as it has to where machines may fail.
func newKeys(b *testing.B, sync bool) *keys {
	b.Helper()
	e := etcdtest.Start(b, etcdtest.Options{Flags: []string{"--unsafe-no-fsync=" + strconv.FormatBool(!sync)}})
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.URL()}, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	claim, err := c.Put(b.Context(), shardKey, "owner")
	if err != nil {
		b.Fatal(err)
	}
	return &keys{e, c, claim.Header.Revision}
}

func (k *keys) put(ctx context.Context, car int, record []byte) error {
	answer, err := k.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(shardKey), "=", k.epoch)).
		Then(clientv3.OpPut("/external-server/test/sessions/1/"+carID(car).String(), string(record))).
		Commit()
	if err == nil && !answer.Succeeded {
		err = fmt.Errorf("the shard belongs to another server")
	}
	return err
}

func (k *keys) settle(context.Context) error { return nil }
func (k *keys) pid() int                     { return k.server.PID() }

// retained are records at the broker.
type retained struct {
	broker *brokertest.Mosquitto
	mu     sync.Mutex
	conn   *wire.Conn
	buf    []byte
	acked  chan struct{}
}

func newRetained(b *testing.B) *retained {
	b.Helper()
	m := brokertest.Start(b, brokertest.Options{Extra: "set_tcp_nodelay true\nlog_type none\n"})
	c, err := wire.Dial(b.Context(), wire.DialOptions{Address: m.Address(), Connect: wire.ConnectOptions{
		Version: wire.V5, ClientID: fence.ClientID("test") + "-1", Continue: true, SessionExpiry: 120, KeepAlive: 600}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	r := &retained{broker: m, conn: c, acked: make(chan struct{}, 1)}
	go func() {
		for {
			var p wire.Packet
			if c.Next(&p) != nil {
				return
			}
			if p.Type == wire.Pingresp {
				r.acked <- struct{}{}
			}
		}
	}()
	return r
}

// put writes nothing by itself: the record is in front of the message in the same write.
func (r *retained) put(_ context.Context, car int, record []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = wire.V5.AppendPublish(r.buf[:0], fence.RecordTopic("test", 1, carID(car)), record, 0, 0, true, false)
	_, err := r.conn.Write(r.buf)
	return err
}

func (r *retained) settle(ctx context.Context) error {
	if _, err := r.conn.Write(wire.AppendPingreq(nil)); err != nil {
		return err
	}
	select {
	case <-r.acked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *retained) pid() int { return r.broker.PID() }

// ways returns both, with the name of each; etcd twice.
func ways(b *testing.B, each func(b *testing.B, w way)) {
	b.Run("etcd", func(b *testing.B) { each(b, newKeys(b, true)) })
	b.Run("etcd-without-fsync", func(b *testing.B) { each(b, newKeys(b, false)) })
	b.Run("retained", func(b *testing.B) { each(b, newRetained(b)) })
}

// cpu is the processor time of a process, of the threads in the kernel too.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * time.Second / 100
}

// memory is the resident memory of a process in MB.
func memory(b *testing.B, pid int) float64 {
	b.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1000
		}
	}
	return 0
}
