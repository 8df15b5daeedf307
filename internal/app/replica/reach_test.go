package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/cluster"
)

// A member that does not answer twice in a row is told of once, and again when it answers. One that was started anew, or is
// no member any more, begins with nothing; this replica does not ask itself.
func TestReach(t *testing.T) {
	var told []string
	faults := map[string]error{}
	r := &reach{
		ask:  func(_ context.Context, m cluster.Member) error { return faults[m.Name] },
		tell: func(m cluster.Member, err error) { told = append(told, fmt.Sprint(m.Name, " ", err)) },
	}
	faults["a"] = errors.New("asked itself")
	view := &cluster.View{Self: "a", Members: []cluster.Member{{Name: "a"}, {Name: "b", Instance: "1"}, {Name: "c", Instance: "1"}}}
	now := time.Unix(1000, 0)
	look := func() {
		now = now.Add(reachEvery)
		var work sync.WaitGroup
		r.look(t.Context(), now, &work, view)
		work.Wait()
		r.look(t.Context(), now.Add(reachEvery-1), &work, view) // too early
		work.Wait()
	}
	expect := func(beyond string, lines ...string) {
		t.Helper()
		if got := r.beyond(); got != beyond && (beyond == "" || !strings.Contains(got, beyond)) {
			t.Errorf("beyond reach: %q, expected %q", got, beyond)
		}
		if got := strings.Join(told, "|"); got != strings.Join(lines, "|") {
			t.Errorf("told %q, expected %q", got, lines)
		}
		told = nil
	}
	look()
	expect("")
	faults["b"] = errors.New("refused")
	look()
	expect("")
	look()
	expect("replica b does not answer this one, so no shard is handed over to it: refused", "b refused")
	look()
	expect("replica b does not answer")
	delete(faults, "b")
	look()
	expect("", "b <nil>")
	faults["b"] = errors.New("refused")
	look()
	view.Members[1].Instance = "2"
	look()
	expect("")
	look()
	expect("replica b does not answer", "b refused")
	view.Members = view.Members[:1]
	look()
	expect("")
}

// A question that is not over is not asked again, and what comes when this replica ends counts for nothing.
func TestReachWaits(t *testing.T) {
	asked, answer := make(chan struct{}, 10), make(chan error)
	r := &reach{
		ask:  func(context.Context, cluster.Member) error { asked <- struct{}{}; return <-answer },
		tell: func(cluster.Member, error) { t.Error("told") },
	}
	view := &cluster.View{Self: "a", Members: []cluster.Member{{Name: "b"}}}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for n := range 3 {
		r.look(ctx, time.Unix(1000, 0).Add(time.Duration(n)*reachEvery), &work, view)
	}
	cancel()
	answer <- errors.New("too late")
	work.Wait()
	if len(asked) != 1 || r.beyond() != "" {
		t.Errorf("%d questions; %q", len(asked), r.beyond())
	}
}
