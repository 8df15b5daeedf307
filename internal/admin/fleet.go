package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/config"
	"external-server/internal/peer"
)

// Cluster is the replicas that serve the cars together, as the endpoint of one of them
// sees them. Its methods may be called concurrently.
type Cluster interface {
	// View is what this replica knows of the others; nil: nothing yet.
	View() *cluster.View
	// Shard is the shard of a car of the company.
	Shard(car string) int
	// Drain begins to give the cars of this replica to the others. It takes none until its
	// process is started anew.
	Drain() error
	// Ask sends a request to the replica at the address; *peer.Client.Do does.
	Ask(ctx context.Context, address string, r *http.Request) (*http.Response, error)
}

// PeerPrefix is the path below which a replica serves PeerHandler to the others.
const PeerPrefix = "/v1/admin"

// Limits of PeerHandler for the peer endpoint.
const (
	PeerBody     = maxBody
	PeerRequests = maxRequests + maxStreams
)

// Headers with which a replica says for whom it asks.
const (
	operatorHeader = "X-Fleet-Operator"
	roleHeader     = "X-Fleet-Role"
)

// Bounds of what is asked of the other replicas.
const (
	gatherTimeout = 2 * time.Second // for all of them to answer
	maxGathered   = 64 << 20        // bytes of one answer
	maxForwarded  = 1 << 20         // bytes of an answer that is passed on, streams excepted
)

// PeerHandler answers the other replicas about the cars of this one, below PeerPrefix.
// Each says for whom it asks; it has checked the token. Serve it to replicas only.
func (s *Server) PeerHandler() http.Handler {
	mux := http.NewServeMux()
	read := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, s.fromPeer(config.RoleRead, h)) }
	operate := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, s.fromPeer(config.RoleOperate, h)) }
	read("GET /api/v1/cars", s.cars)
	read("GET /api/v1/cars/{car}", s.car)
	read("GET /api/v1/cars/{car}/messages", s.messages)
	read("GET /api/v1/cars/{car}/commands", s.commandable)
	read("GET /api/v1/positions", s.positions)
	read("GET /api/v1/events", s.events)
	read("GET /api/v1/history", s.history)
	read("GET /api/v1/alerts", s.alerts)
	read("GET /api/v1/log", s.logLines)
	operate("POST /api/v1/cars/{car}/disconnect", s.disconnect)
	operate("POST /api/v1/cars/{car}/reannounce", s.reannounce)
	operate("POST /api/v1/cars/{car}/commands", s.sendCommand)
	operate("POST /api/v1/reload", s.reload)
	operate("POST /api/v1/drain", s.drain)
	return http.StripPrefix(PeerPrefix, mux)
}

// fromPeer takes over who asked the other replica.
func (s *Server) fromPeer(role config.Role, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		replica, ok := peer.FromRequest(r)
		i := identity{name: r.Header.Get(operatorHeader), role: config.Role(r.Header.Get(roleHeader))}
		if !ok || i.role != config.RoleRead && i.role != config.RoleOperate || !i.may(role) {
			fail(w, http.StatusForbidden, "this needs the role "+string(role))
			return
		}
		if i.name == "" {
			i.name = "somebody"
		}
		i.name += " at " + replica
		if role == config.RoleOperate {
			s.log.Info("operator", "request", r.Method+" "+r.URL.EscapedPath(), "token", i.name)
		}
		next(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, i)))
	})
}

// others returns the replicas besides this one that can be asked, when the request is
// to be answered for the whole fleet: nil without cluster, and for another replica's request.
func (s *Server) others(r *http.Request) (others []cluster.Member) {
	if _, from := peer.FromRequest(r); from || s.opts.Cluster == nil {
		return nil
	}
	view := s.opts.Cluster.View()
	if view == nil {
		return nil
	}
	for _, m := range view.Members {
		if m.Name != view.Self && m.Address != "" {
			others = append(others, m)
		}
	}
	// One that etcd does not hear from is no member, and serves on.
	for _, o := range view.Shards {
		known := func(m cluster.Member) bool { return m.Name == o.Replica }
		if o.Replica != view.Self && o.Address != "" && !slices.ContainsFunc(view.Members, known) && !slices.ContainsFunc(others, known) {
			others = append(others, cluster.Member{Name: o.Replica, Address: o.Address})
		}
	}
	return others
}

// absent is a replica that did not answer.
type absent struct {
	Replica string `json:"replica"`
	Reason  string `json:"reason"`
}

// forOther makes the request of an operator that another replica is to answer.
func (s *Server) forOther(ctx context.Context, r *http.Request, method, path string, query url.Values, body []byte) (*http.Request, error) {
	u := url.URL{Path: PeerPrefix + path, RawQuery: query.Encode()}
	out, err := http.NewRequestWithContext(ctx, method, u.String(), strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	i := who(r)
	out.Header.Set(operatorHeader, i.name)
	out.Header.Set(roleHeader, string(i.role))
	for _, name := range []string{"Accept", "Last-Event-ID", "Content-Type"} {
		if value := r.Header.Get(name); value != "" {
			out.Header.Set(name, value)
		}
	}
	return out, nil
}

// gather asks the other replicas at the same time and decodes their answers. Those that do
// not answer in time are absent: the others' cars are worth showing all the same.
func gather[T any](s *Server, r *http.Request, path string, query url.Values) (answers []T, missing []absent) {
	others := s.others(r)
	if len(others) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), gatherTimeout)
	defer cancel()
	results, errs := make([]T, len(others)), make([]error, len(others))
	var asking sync.WaitGroup
	for n, m := range others {
		asking.Go(func() { errs[n] = s.ask(ctx, r, m, path, query, &results[n]) })
	}
	asking.Wait()
	for n, m := range others {
		if errs[n] != nil {
			missing = append(missing, absent{m.Name, errs[n].Error()})
			continue
		}
		answers = append(answers, results[n])
	}
	return answers, missing
}

func (s *Server) ask(ctx context.Context, r *http.Request, m cluster.Member, path string, query url.Values, into any) error {
	out, err := s.forOther(ctx, r, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	answer, err := s.opts.Cluster.Ask(peer.For(ctx, m.Name), m.Address, out)
	if err != nil {
		return because(err)
	}
	defer func() { _ = answer.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxGathered))
	if err != nil {
		return because(err)
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New(detailOf(answer.StatusCode, raw))
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("its answer cannot be read: %w", err)
	}
	return nil
}

// because makes a text for people of why a replica did not answer.
func because(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", gatherTimeout)
	}
	return err
}

// detailOf is what a problem says.
func detailOf(status int, raw []byte) string {
	var p problem
	if json.Unmarshal(raw, &p) == nil && p.Detail != "" {
		return p.Detail
	}
	return fmt.Sprintf("%d %s", status, http.StatusText(status))
}

// atOwner lets the replica that serves the car answer.
func (s *Server) atOwner(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		car := r.PathValue("car")
		if car == "" {
			car = r.URL.Query().Get("car")
		}
		if _, from := peer.FromRequest(r); from || s.opts.Cluster == nil || car == "" {
			next(w, r)
			return
		}
		view := s.opts.Cluster.View()
		if _, here := s.opts.Source.Car(car); here || view == nil {
			next(w, r)
			return
		}
		n := s.opts.Cluster.Shard(car)
		var owner cluster.Owner
		if n < len(view.Shards) {
			owner = view.Shards[n]
		}
		switch {
		case owner.Replica == view.Self:
			next(w, r)
		case owner.Replica == "" || owner.Address == "":
			w.Header().Set("Retry-After", "2")
			fail(w, http.StatusServiceUnavailable, fmt.Sprintf("no replica serves the cars of shard %d at the moment, of which %s is one; one takes over within seconds", n, car))
		default:
			s.pass(w, r, owner)
		}
	}
}

// pass passes a request on to another replica, and its answer, or stream, back.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, owner cluster.Owner) {
	body, err := io.ReadAll(r.Body) // bounded by guard
	if err != nil {
		fail(w, http.StatusBadRequest, "the body cannot be read: "+err.Error())
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out, err := s.forOther(ctx, r, r.Method, r.URL.Path, r.URL.Query(), body)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	slow := time.AfterFunc(requestTimeout, cancel) // the answer has to begin
	answer, err := s.opts.Cluster.Ask(peer.For(ctx, owner.Replica), owner.Address, out)
	if !slow.Stop() && err == nil {
		err = errors.New("no answer in time")
	}
	if err != nil {
		w.Header().Set("Retry-After", "2")
		fail(w, http.StatusBadGateway, fmt.Sprintf("the replica %s, which serves the car, did not answer: %v", owner.Replica, err))
		return
	}
	defer func() { _ = answer.Body.Close() }()
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		st, end := s.begin(w, r)
		if st == nil {
			return
		}
		defer end()
		stop := context.AfterFunc(st.ctx, cancel)
		defer stop()
		st.copy(answer.Body)
		return
	}
	for _, name := range []string{"Content-Type", "Retry-After"} {
		if value := answer.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(answer.Body, maxForwarded)) // fails when one of them has gone
}

// copy passes a stream on as it comes, until one of its ends has gone.
func (st *stream) copy(from io.Reader) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && st.send(buffer[:n]) != nil || err != nil {
			return
		}
	}
}

// place says where a car is served, and of which shard it is.
func (s *Server) place(b *carBrief) {
	if s.opts.Cluster == nil {
		return
	}
	view := s.opts.Cluster.View()
	n := s.opts.Cluster.Shard(b.Name)
	if view == nil || n >= len(view.Shards) {
		return
	}
	b.Replica, b.Shard = view.Self, &n
	if view.Shards[n].Replica == view.Self {
		b.Epoch = view.Shards[n].Epoch
	}
}

// merge adds the cars of the other replicas to a list. A car that moves may be at two: the
// owner's counts.
func (l *carList) merge(lists []carList) {
	at := make(map[string]int, len(l.Cars))
	for i := range l.Cars {
		at[l.Cars[i].Name] = i
	}
	for _, other := range lists {
		l.Total += other.Total
		l.Matched += other.Matched
		l.Suspended += other.Suspended
		for state, n := range other.States {
			l.States[state] += n
		}
		for _, b := range other.Cars {
			i, twice := at[b.Name]
			if !twice {
				at[b.Name] = len(l.Cars)
				l.Cars = append(l.Cars, b)
				continue
			}
			drop := b
			if b.Epoch > l.Cars[i].Epoch {
				drop, l.Cars[i] = l.Cars[i], b
			}
			l.Total--
			l.Matched--
			l.States[drop.State]--
			if drop.Suspended {
				l.Suspended--
			}
		}
	}
}
