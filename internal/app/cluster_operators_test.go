package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"external-server/internal/cluster"
	"external-server/internal/config"
	"external-server/internal/support/testwait"
)

// ask makes a request of the admin endpoint.
func (r *sharer) ask(t *testing.T, method, path string, into any) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+r.AdminAddr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-External-Server", "test")
	request.Header.Set("Accept", "application/json")
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatalf("%s %s: %d %s", method, path, answer.StatusCode, raw)
		}
	}
	return answer.StatusCode
}

// Each of two replicas shows the cars of both, with who serves them; an operator at one
// disconnects a car of the other; a hand-over is seen from both.
func TestOperatorsSeeOneFleet(t *testing.T) {
	names, cars := carsOfEach(1)
	c := newCrowd(t, cars)
	c.edit = func(cfg *config.Config) { cfg.Admin = &config.Admin{Listen: "127.0.0.1:0"} }
	a, b := c.start("a"), c.start("b")
	for _, r := range []*sharer{a, b} {
		r.chair.change(func(v *cluster.View) {
			v.Members = append(slices.Clone(v.Members), cluster.Member{Name: r.name, Address: r.peers.address(r.cfg.Cluster), State: cluster.StateReady})
		})
	}
	c.open(a, 0, 1)
	c.open(b, 2, 3)
	c.drive(names...)
	type list struct {
		Total int
		Cars  []struct {
			Name, State, Replica string
			Shard                int
			Epoch                int64
		}
	}
	running := func(owner func(shard int) string) {
		t.Helper()
		for _, r := range []*sharer{a, b} {
			testwait.Until(t, "all cars are shown at "+r.name, func() bool {
				var l list
				r.ask(t, "GET", "/api/v1/cars", &l)
				for _, car := range l.Cars {
					if car.State != "running" || car.Replica != owner(car.Shard) || car.Epoch == 0 {
						return false
					}
				}
				return l.Total == crowdShards
			})
		}
	}
	running(func(shard int) string { return []string{"a", "a", "b", "b"}[shard] })
	c.unnoticed()

	car := names[slices.IndexFunc(names, func(name string) bool { return shardOf(name) == 3 })]
	if code := a.ask(t, "POST", "/api/v1/cars/"+car+"/disconnect", nil); code != http.StatusAccepted {
		t.Errorf("disconnect %s: %d", car, code)
	}
	testwait.Until(t, "the car of b connects anew", func() bool {
		for _, d := range c.drives {
			if d.Car().Car == car {
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.sessions == 2
			}
		}
		return false
	})
	var ready struct {
		Components []struct {
			Name, Reason string
			Ready        bool
		}
	}
	testwait.Until(t, "a is ready", func() bool { return a.ask(t, "GET", "/readyz", &ready) == http.StatusOK })
	if !strings.Contains(fmt.Sprint(ready), "cluster") {
		t.Errorf("ready: %v", ready)
	}
	// Shard 2 has no owner for a moment.
	if err := b.cluster.replica.Close(t.Context(), 2, a.member(), false); err != nil {
		t.Fatal(err)
	}
	c.table.change(func(v *cluster.View) { v.Shards[2] = cluster.Owner{} })
	a.ask(t, "GET", "/readyz", &ready)
	if !strings.Contains(fmt.Sprint(ready), "1 of 4 shards has no owner: 2") {
		t.Errorf("without owner: %v", ready)
	}
	c.open(a, 2)
	running(func(shard int) string { return []string{"a", "a", "a", "b"}[shard] })
}
