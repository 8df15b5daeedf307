package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/httpapi"
	"external-server/internal/support/testwait"
)

// balancer is what stands in front of the HTTP APIs of replicas: each request goes to the next one, and
// to the one after when no connection can be made.
type balancer struct {
	hosts []string
	next  atomic.Uint64
	via   http.Transport // with connections of one request each
}

// RoundTrip implements http.RoundTripper.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	body := []byte(nil)
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	first := b.next.Add(1)
	for i := range uint64(len(b.hosts)) {
		try := r.Clone(r.Context())
		try.URL.Scheme, try.URL.Host = "http", b.hosts[(first+i)%uint64(len(b.hosts))]
		try.Body = io.NopCloser(bytes.NewReader(body))
		answer, err := b.via.RoundTrip(try)
		if dial := (*net.OpError)(nil); !errors.As(err, &dial) || dial.Op != "dial" {
			return answer, err
		}
	}
	return nil, errors.New("no replica accepts connections")
}

// balance returns the URL of a balancer in front of all replicas.
func (a *apis) balance() string {
	b := &balancer{via: http.Transport{DisableKeepAlives: true}}
	for _, m := range a.all {
		at, err := url.Parse(m.api)
		if err != nil {
			a.Fatal(err)
		}
		b.hosts = append(b.hosts, at.Host)
	}
	front := httptest.NewServer(&httputil.ReverseProxy{Transport: b, Rewrite: func(*httputil.ProxyRequest) {},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, fmt.Sprintf(`{"detail":%q}`, err), http.StatusBadGateway)
		}})
	a.Cleanup(front.Close)
	return front.URL + "/v2/protocol"
}

// poster posts commands of a car one after the other.
type poster struct {
	car     *car
	posted  int
	longest time.Duration
	errs    []error
}

func (p *poster) run(ctx context.Context, client *httpapi.Client) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		begun := time.Now()
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), testwait.Patience)
		err := error(nil)
		for again := true; again; {
			asked := time.Now()
			err = client.PostCommands(bound, carID(p.car.name), post(p.car.device, "COMMAND", p.text(p.posted)))
			// A replica that stops passes posts on for a second at most. Where the machine lets the hand-over last
			// longer, it refuses them, and the client asks again.
			again = httpapi.StatusOf(err) == http.StatusServiceUnavailable && time.Since(asked) > time.Second
		}
		cancel()
		p.posted++
		p.longest = max(p.longest, time.Since(begun))
		if err != nil {
			p.errs = append(p.errs, fmt.Errorf("command %d after %v: %w", p.posted-1, time.Since(begun).Round(time.Millisecond), err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (p *poster) text(n int) string { return fmt.Sprintf("%s %d.", p.car.name, n) }

// A cluster with an HTTP API is upgraded one replica after the other (SIGTERM, start), while cars drive and a
// client posts commands through a balancer that knows nothing of the replicas. No request is refused, none is
// held longer than the documentation says, and each car gets each command once and in order, with timestamps that rise.
func TestRollingUpgradeKeepsCommands(t *testing.T) {
	t.Parallel()
	const cars, held = 12, 10 * time.Second
	r := &rig{TB: t, row: &row{}, dir: t.TempDir(), libraries: make(map[int32]string)}
	a := r.shareAPI(3, cars)
	for _, m := range a.all {
		a.start(m)
	}
	for _, m := range a.all {
		testwait.Until(t, m.name+" has shards", func() bool { return strings.Contains(m.server.Log(), "serving a shard") })
	}
	testwait.Until(t, "every car has an owner", func() bool { return len(a.owners(a.all[0])) == cars })
	r.startCars(fleetOf("car", cars, transparent, nil), 500*time.Millisecond)
	client, err := httpapi.NewClient(httpapi.ClientOptions{URL: a.balance()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var posting sync.WaitGroup
	var all []*poster
	begun := time.Now().Add(-time.Second).UnixMilli()
	for _, c := range r.crew.cars {
		c.mu.Lock()
		c.keeps = true
		c.mu.Unlock()
		p := &poster{car: c}
		all = append(all, p)
		posting.Go(func() { p.run(ctx, client) })
	}
	for _, m := range a.all {
		if m.server.Stop() != 0 {
			t.Errorf("%s does not end in order", m.name)
		}
		if strings.Contains(m.server.Log(), "statuses stay in the spool") {
			t.Errorf("a module of %s waited for the next owner of its car, and that one for the module", m.name)
		}
		a.start(m)
		testwait.Until(t, m.name+" is ready", func() bool { return a.fetch(m.admin+"/readyz").code == http.StatusOK })
	}
	stop()
	posting.Wait()

	total, longest := 0, time.Duration(0)
	for _, p := range all {
		total, longest = total+p.posted, max(longest, p.longest)
		for _, err := range p.errs {
			t.Errorf("car %s: %v", p.car.name, err)
		}
		p.arrived(t)
		stored, err := client.Commands(patient(t), carID(p.car.name), httpapi.Query{Since: begun})
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n < len(stored); n++ {
			if stored[n].Timestamp <= stored[n-1].Timestamp {
				t.Errorf("car %s: command %d has the timestamp %d, the one before %d", p.car.name, n, stored[n].Timestamp, stored[n-1].Timestamp)
			}
		}
		if n := p.car.lostSessions(); n > 0 {
			t.Errorf("car %s lost its session: %s", p.car.name, p.car.reasons(p.car.ends))
		}
	}
	t.Logf("%d commands, the longest request took %v", total, longest.Round(time.Millisecond))
	if longest > held {
		t.Errorf("a request was held for %v, at most %v are promised", longest, held)
	}
	for _, m := range a.all {
		if m.server.Stop() != 0 {
			t.Errorf("%s does not end in order", m.name)
		}
	}
}

// arrived waits until the car has what was posted, and demands that each command came once and in order.
func (p *poster) arrived(t *testing.T) {
	t.Helper()
	last := p.text(p.posted - 1)
	got := func() []string {
		p.car.mu.Lock()
		defer p.car.mu.Unlock()
		return p.car.got
	}
	testwait.Until(t, "car "+p.car.name+" has the last command", func() bool {
		all := got()
		return len(all) > 0 && strings.Contains(all[len(all)-1], last)
	})
	all := got()
	if len(all) != p.posted {
		t.Errorf("car %s got %d commands of %d", p.car.name, len(all), p.posted)
	}
	for n, data := range all {
		if !strings.Contains(data, p.text(n)) {
			t.Errorf("car %s: command %d is %.60q, expected %q", p.car.name, n, data, p.text(n))
			break
		}
	}
}
