package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/support/brokertest"
)

// epochs listens to what the owners of shards publish about themselves, in the order in
// which the broker took it.
//
// The epoch of a shard is a register that its owners write: it is linearizable when no write
// takes effect after a higher one, and no two replicas write the same value. The broker
// has put the writes in order already, so both can be told from that order; no search for a
// history that explains it is needed.
type epochs struct {
	mu     sync.Mutex
	last   map[int]announced // by shard
	risen  int
	broken []string
}

type announced struct {
	Epoch   int64  `json:"epoch"`
	Replica string `json:"replica"`
}

func watchEpochs(t testing.TB, address string) *epochs {
	t.Helper()
	e := &epochs{last: make(map[int]announced)}
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			e.listen(ctx, address)
			select { // the broker may be away
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { stop(); work.Wait() })
	return e
}

// listen notes what is published until the connection ends.
func (e *epochs) listen(ctx context.Context, address string) {
	p, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
	if err != nil {
		return
	}
	release := context.AfterFunc(ctx, func() { _ = p.Conn.Close() })
	defer release()
	defer p.Conn.Close()
	if p.Subscribe(1, "es/"+clusterName+"/+/epoch") != nil {
		return
	}
	for {
		m, err := p.Receive(20 * time.Second)
		if err != nil && ctx.Err() == nil {
			err = p.Ping() // or the broker ends the connection
			if err == nil {
				continue
			}
		}
		if err != nil {
			return
		}
		e.note(m)
	}
}

func (e *epochs) note(m brokertest.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	shard, err := strconv.Atoi(strings.Split(m.Topic, "/")[2])
	var now announced
	if err == nil {
		err = json.Unmarshal(m.Payload, &now)
	}
	if err != nil {
		e.broken = append(e.broken, fmt.Sprintf("%s: %q: %v", m.Topic, m.Payload, err))
		return
	}
	last := e.last[shard]
	switch {
	case now.Epoch > last.Epoch:
		e.last[shard] = now
		e.risen++
	case now.Epoch < last.Epoch:
		e.broken = append(e.broken, fmt.Sprintf("shard %d: %+v was published after %+v", shard, now, last))
	case now.Replica != last.Replica:
		e.broken = append(e.broken, fmt.Sprintf("shard %d: two replicas have published epoch %d: %s and %s", shard, now.Epoch, last.Replica, now.Replica))
	}
}

// rises is the number of epochs that were above the one before.
func (e *epochs) rises() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.risen
}

// shards is the number of shards that were ever owned.
func (e *epochs) shards() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.last)
}

// owner is the replica that has published the epoch of the shard last.
func (e *epochs) owner(shard int) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last[shard].Replica
}

// verdict demands that every epoch was higher than those before it.
func (e *epochs) verdict(t testing.TB) string {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, text := range e.broken {
		t.Error(text)
	}
	return fmt.Sprintf("%d epochs, each above the one before", e.risen)
}

// The judge of the epochs sees what it is there for.
func TestEpochsAreJudged(t *testing.T) {
	message := func(shard int, epoch int64, replica string) brokertest.Message {
		return brokertest.Message{Topic: fmt.Sprintf("es/%s/%d/epoch", clusterName, shard), Payload: fmt.Appendf(nil, `{"epoch":%d,"replica":%q}`, epoch, replica)}
	}
	for _, tt := range []struct {
		name     string
		messages []brokertest.Message
		broken   int
	}{
		{"rising", []brokertest.Message{message(1, 5, "a"), message(1, 5, "a"), message(1, 7, "b"), message(2, 3, "a")}, 0},
		{"falling", []brokertest.Message{message(1, 7, "b"), message(1, 5, "a")}, 1},
		{"shared", []brokertest.Message{message(1, 7, "b"), message(1, 7, "a")}, 1},
		{"unreadable", []brokertest.Message{{Topic: "es/fleet/1/epoch", Payload: []byte("7")}}, 1},
	} {
		e := &epochs{last: make(map[int]announced)}
		for _, m := range tt.messages {
			e.note(m)
		}
		if len(e.broken) != tt.broken {
			t.Errorf("%s: %q", tt.name, e.broken)
		}
	}
}
