package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

var recorderDevice = fleet.Device{Module: 78, Type: 1, Role: "sensor", Name: "s"}

// recorded are the statuses that the modules of all replicas have written down.
func recorded(t *testing.T, path string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		lines[strings.TrimSpace(line)]++
	}
	return lines
}

// account notes which statuses of a car left, and which were answered.
type account struct {
	onWay    map[uint32]string // by counter
	answered []string
}

func (a *account) observe(e gateway.Effect) {
	switch {
	case e.Kind == gateway.EffectSend && e.Message.Kind == fleet.ClientStatus:
		a.onWay[e.Message.Counter] = string(e.Message.Data)
	case e.Kind == gateway.EffectAnswered:
		a.answered = append(a.answered, a.onWay[e.Counter])
		delete(a.onWay, e.Counter)
	}
}

// The module, a C library, hangs, and the replica that has statuses waiting for it is killed. With "answer": "delivered" no
// car had an answer to these; the next owner delivers them, and no session ends.
func TestAnsweredIsDeliveredWhenAReplicaIsKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, 12)
	dir := t.TempDir()
	record, hang := filepath.Join(dir, "record"), filepath.Join(dir, "hang")
	for _, config := range f.configs {
		config["common_modules"] = obj{"78": obj{
			"lib_path": servertest.Library(t, "test/faults/testdata/recorder.c"), "answer": "delivered",
			"config": obj{"record": record, "hang": hang},
		}}
	}
	f.start(0, 1, 2)
	f.spread(32, 0, 1, 2)
	accounts := make(map[*sharedCar]*account)
	for name := range f.configs[0]["cars"].(obj) {
		c, a := new(sharedCar), &account{onWay: make(map[uint32]string)}
		c.testCar = startCarWith(t, open(f.broker), name, gateway.Timing{
			RetryPause: 300 * time.Millisecond, MessageTimeout: time.Minute, LinkTimeout: 30 * time.Second,
			StatusTimeout: 30 * time.Second, QueuePoll: 50 * time.Millisecond, LeaveStall: 50 * time.Millisecond,
		})
		c.watch.mu.Lock()
		c.watch.effect = a.observe
		c.watch.mu.Unlock()
		accounts[c] = a
		f.cars = append(f.cars, c)
		f.drives.Go(func() {
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for n := 1; ; n++ {
				c.report(fmt.Sprintf(`"%s %d"`, name, n), recorderDevice)
				select {
				case <-f.stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	t.Cleanup(func() {
		close(f.stop)
		f.drives.Wait()
	})
	f.served(3)
	if err := os.WriteFile(hang, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for c, a := range accounts {
		testwait.Until(t, fmt.Sprintf("statuses of car %v wait for the module", c.Car()), func() bool {
			c.watch.mu.Lock()
			defer c.watch.mu.Unlock()
			return len(a.onWay) >= 5
		})
	}
	f.replicas[0].Kill()
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	f.served(20)
	f.unnoticed("a replica with waiting statuses is killed")
	for c, a := range accounts {
		c.watch.mu.Lock()
		answered := slices.Clone(a.answered)
		c.watch.mu.Unlock()
		lines := recorded(t, record) // after the answers were seen
		for _, status := range answered {
			if lines[status] == 0 {
				t.Errorf("status %s of car %v was answered and not delivered", status, c.Car())
			}
		}
		if len(answered) < 23 {
			t.Errorf("car %v has had %d answers", c.Car(), len(answered))
		}
	}
	for _, i := range []int{1, 2} {
		if text := f.replicas[i].Log(); strings.Contains(text, "has not taken it in time") {
			t.Errorf("replica %d has answered without its module", i)
		}
		if code := f.replicas[i].Stop(); code != 0 {
			t.Errorf("exit code %d of replica %d", code, i)
		}
	}
}
