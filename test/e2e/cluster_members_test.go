package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// clusterSeen is what a replica shows of its cluster.
type clusterSeen struct {
	Cluster struct {
		Scout   string
		Members []struct {
			Name, State string
			Shards      int
		}
		Shards []struct{ Replica, State string }
	}
}

// asked returns what a replica answers; nothing when it does not, as one that is starting.
func (f *fleetOf) asked(i int, path string) []byte {
	answer, err := http.Get("http://" + f.admins[i] + path)
	if err != nil {
		return nil
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body) // what there is of it
	return text
}

// cluster returns what a replica shows; nothing when it does not answer.
func (f *fleetOf) cluster(i int) (seen clusterSeen) {
	_ = json.Unmarshal(f.asked(i, "/api/v1/server"), &seen) // not of one that does not answer
	return seen
}

// balanced waits until a replica shows that all shards are served and shared evenly among so many.
func (f *fleetOf) balanced(i, among int) {
	f.t.Helper()
	testwait.Until(f.t, "the shards are shared", func() bool {
		seen, least, most, sharing := f.cluster(i).Cluster, 1<<10, 0, 0
		for _, m := range seen.Members {
			if m.State == "ready" {
				least, most = min(least, m.Shards), max(most, m.Shards)
				sharing++
			}
		}
		for _, s := range seen.Shards {
			if s.State != "serving" {
				return false
			}
		}
		return sharing == among && most-least <= 1
	})
}

// scout waits until a replica knows who looks out for unknown cars, other than the ones given, and returns its index.
func (f *fleetOf) scout(i int, not ...int) (scout int) {
	f.t.Helper()
	testwait.Until(f.t, "a replica looks out for unknown cars", func() bool {
		name := f.cluster(i).Cluster.Scout
		scout = slices.IndexFunc(f.configs, func(c obj) bool { return c["cluster"].(obj)["replica"] == name })
		return scout >= 0 && !slices.Contains(not, scout)
	})
	return scout
}

// guest lets a car connect that no configuration names, and leave again.
func (f *fleetOf) guest(name string) {
	f.t.Helper()
	c := startCarWith(f.t, open(f.broker), name, gateway.Timing{
		RetryPause: 300 * time.Millisecond, MessageTimeout: 5 * time.Second, LinkTimeout: 30 * time.Second,
		StatusTimeout: 30 * time.Second, QueuePoll: 50 * time.Millisecond, LeaveStall: 50 * time.Millisecond,
	})
	// There may be no scout, or an owner that answers an attempt which the gateway has given up.
	for _, r := range []gateway.Reason{gateway.ReasonNoConnectResponse, gateway.ReasonNoStatusResponse, gateway.ReasonNoCommand,
		gateway.ReasonConnectSession, gateway.ReasonNotConnectResponse} {
		c.expect(r.String())
	}
	begun := time.Now()
	c.reportUntil(name+" is served", func() bool { n, answered, _ := c.watch.get(); return n > 0 && answered > 1 }, button)
	f.t.Logf("%s was served after %v", name, time.Since(begun).Round(time.Millisecond))
	c.Close()
}

// Cars that no configuration names are found by one of the replicas, from a reload on that adds "*": also while etcd
// is away, after that replica was killed, and after the next one was drained.
func TestScoutOfReplicas(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, 1)
	f.start(0, 1, 2)
	f.balanced(0, 3)
	for i, config := range f.configs {
		config["cars"].(obj)["*"] = obj{}
		servertest.WriteConfig(t, f.replicas[i].ConfigPath, config)
	}
	out, notes, code := servertest.Run(t, t.TempDir(), "reload", "--all", "--admin", "http://"+f.admins[0])
	if code != 0 || strings.Count(out, "0 changed") != 3 {
		t.Fatalf("%d\n%s\n%s", code, out, notes)
	}
	first := f.scout(0)
	f.guest("guest_1")

	f.etcd.Freeze()
	for i := range f.replicas {
		testwait.Until(t, "the replica notices that etcd is away", func() bool {
			return bytes.Contains(f.asked(i, "/readyz"), []byte("cannot use etcd"))
		})
	}
	f.guest("guest_2")
	f.etcd.Thaw()

	other := (first + 1) % 3
	first = f.scout(other)
	f.replicas[first].Kill()
	f.guest("guest_3")
	second := f.scout((first+1)%3, first)

	third := 3 - first - second
	name := f.configs[second]["cluster"].(obj)["replica"].(string)
	if out, notes, code := servertest.Run(t, t.TempDir(), "drain", "--admin", "http://"+f.admins[third], name); code != 0 {
		t.Errorf("%d\n%s\n%s", code, out, notes)
	}
	f.scout(third, second)
	f.guest("guest_4")
}

// A replica that alone has lost etcd is no member after its lease, and serves on. The others show its cars with theirs, and
// say in their readiness who serves them.
func TestOneReplicaWithoutEtcd(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, 12)
	f.start(0, 1)
	f.balanced(0, 2)
	f.drive()
	f.networks[0][1].Set(badnetwork.Faults{Silent: true})
	var ready, list string
	testwait.Until(t, "the other one shows the cars of both and who serves them", func() bool {
		ready, list = string(f.asked(1, "/readyz")), string(f.asked(1, "/api/v1/cars?limit=200"))
		return strings.Contains(ready, "served by replicas that are no members") && strings.Contains(list, `"running":12,`) && strings.Contains(list, `"replica":"r0"`)
	})
	if strings.Contains(ready, "claimed by replicas") || strings.Contains(list, `"missing"`) {
		t.Errorf("%s\n%.2000s", ready, list)
	}
	f.served(4)
	f.networks[0][1].Set(badnetwork.Faults{})
	testwait.Until(t, "it is a member again", func() bool {
		return !strings.Contains(string(f.asked(1, "/readyz")), "no members") && len(f.cluster(1).Cluster.Members) == 2
	})
	f.served(2)
	f.unnoticed("one replica without etcd")
}
