package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/core"
	"external-server/internal/peer"
)

// Headers between replicas.
const (
	waitHeader  = "X-Fleet-Wait"  // how long a request may be held, ms
	keyHeader   = "X-Fleet-Key"   // name of the API key that the first replica has checked
	movedHeader = "X-Fleet-Moved" // in an answer: this replica does not serve the car
)

// Times of the router.
const (
	// tryAgain is how long it waits for a change of the owners after an owner that is known
	// did not take a request.
	tryAgain = 100 * time.Millisecond
	// loadTime is how long another replica's request waits for the shard to be loaded.
	loadTime     = time.Second
	refusalPause = time.Minute // between two lines about an owner that refuses this replica
)

// PeerLimits are the limits of PeerHandler: the size of a request's body in bytes and how
// many may be under way.
const (
	PeerBody     = defaultBody
	PeerRequests = core.DefaultWaits
)

// router brings each request for a car to the replica that serves it. A request is held
// while none does; a request that only reads and is not to wait is then answered from the
// store, which every replica can read.
type router struct {
	core   *core.Core
	owners core.Owners
	peers  Peers
	log    *slog.Logger
	hold   time.Duration
	most   int // requests that may be under way

	under     atomic.Int64 // requests that are held or were passed on
	posting   atomic.Int64 // of these, posts
	passed    atomic.Int64 // requests that another replica has answered, in all
	refusalAt atomic.Int64 // unix ns of the last line about an owner that refuses
}

// routedRequest is one request for a car on its way through the router.
type routedRequest struct {
	kind  httpapi.Kind
	car   fleet.CarID
	query httpapi.Query
	post  bool
	body  []byte
	key   string // name of the client's key
	until time.Time
}

// serve answers a request here, lets the owner of the car answer it, or holds it.
func (rt *router) serve(h *handler, w http.ResponseWriter, r *http.Request, q *routedRequest) error {
	if n := rt.under.Add(1); n > int64(rt.most) {
		rt.under.Add(-1)
		return httpapi.NewError(http.StatusServiceUnavailable, "%d requests wait already, which is the limit; try again later or without wait", n-1)
	}
	defer rt.under.Add(-1)
	now := time.Now()
	switch {
	case q.post:
		rt.posting.Add(1)
		defer rt.posting.Add(-1)
		q.until = now.Add(rt.hold)
	case q.query.Wait:
		q.until = now.Add(rt.core.WaitTimeout())
	default:
		q.until = now
	}
	for {
		if err := rt.core.NotReady(); err != nil {
			return err
		}
		owner, ready, changed := rt.core.Where(q.car)
		pause := time.Duration(0) // until the next attempt; 0: until something changes
		switch {
		case ready:
			err := q.local(h, w, r)
			if !errors.Is(err, core.ErrMoved) {
				return err
			}
			continue // where says something else now
		case !owner.Self && owner.Address != "":
			done, err := rt.pass(w, r, q, owner)
			if done {
				return err
			}
			pause = tryAgain
		}
		if !q.post {
			answered, err := rt.fromStore(w, r, q)
			if answered {
				return err
			}
		}
		if err := rt.await(r.Context(), changed, q.until, pause); err != nil {
			return err
		}
		if q.post && !time.Now().Before(q.until) {
			shard := rt.owners.Shard(q.car)
			return httpapi.NewError(http.StatusServiceUnavailable, "no replica of the cluster serves the car %s at the moment (shard %d), which took longer than %s; nothing was stored, try again", q.car, shard, rt.hold)
		}
	}
}

// await returns when the owners have changed, the pause is over (0: none) or the time
// has come.
func (rt *router) await(ctx context.Context, changed <-chan struct{}, until time.Time, pause time.Duration) error {
	left := time.Until(until)
	if pause > 0 {
		left = min(left, pause)
	}
	timer := time.NewTimer(max(0, left))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-rt.core.Stopping():
		return core.ErrStopping
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// local answers a request by this replica.
func (q *routedRequest) local(h *handler, w http.ResponseWriter, r *http.Request) error {
	if q.post {
		return h.storeMessages(w, r, q.kind, q.car, q.body)
	}
	limit := time.Duration(0)
	if q.query.Wait {
		limit = max(time.Until(q.until), time.Millisecond) // 0 means the API's
	}
	messages, err := h.core.Read(r.Context(), q.kind, q.car, q.query, limit)
	return answerMessages(w, r, messages, err)
}

// fromStore answers a reading request from the store: at once when there is something to
// return, otherwise when its time is over.
func (rt *router) fromStore(w http.ResponseWriter, r *http.Request, q *routedRequest) (answered bool, err error) {
	over := !time.Now().Before(q.until)
	messages, err := rt.core.StoredMessages(r.Context(), q.kind, q.car, q.query.Since)
	if err == nil && len(messages) == 0 {
		if !over {
			return false, nil
		}
		var devices []httpapi.DeviceID
		devices, err = rt.core.StoredDevices(r.Context(), q.car)
		if err == nil && (len(devices) == 0 || q.query.Wait && q.kind == httpapi.KindStatus) {
			return true, answerMessages(w, r, nil, core.NotKnown(q.car)) // HTTP-12, HTTP-13
		}
	}
	if err != nil {
		return true, err
	}
	return true, answerMessages(w, r, messages, nil)
}

// pass lets the owner answer. It returns false when the owner did not, and the request may
// be tried again.
func (rt *router) pass(w http.ResponseWriter, r *http.Request, q *routedRequest, owner core.Owner) (done bool, err error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if !q.post { // what reads can be asked again elsewhere, as soon as there is another owner
		var watching sync.WaitGroup
		defer watching.Wait()
		defer cancel()
		watching.Go(func() { rt.whileOwner(ctx, q.car, owner); cancel() })
	}
	out, err := q.forOwner(ctx, r)
	if err != nil {
		return true, err
	}
	answer, err := rt.peers.Do(peer.For(ctx, owner.Replica), owner.Address, out)
	if err != nil {
		return rt.unanswered(r, q, owner, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusMisdirectedRequest && answer.Header.Get(movedHeader) != "" {
		return false, nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, httpapi.DefaultMaxResponse+1))
	if err != nil || len(body) > httpapi.DefaultMaxResponse {
		if err == nil {
			err = errors.New("its answer is too large")
		}
		return rt.unanswered(r, q, owner, &peer.Error{Address: owner.Address, Reason: peer.Unreachable, Sent: true, Err: err})
	}
	rt.passed.Add(1)
	for _, name := range []string{"Content-Type", "Retry-After", "Allow"} {
		if value := answer.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(body) // fails only when the client has gone
	return true, nil
}

// whileOwner returns when the owner of a car is another one, or ctx has ended.
func (rt *router) whileOwner(ctx context.Context, car fleet.CarID, owner core.Owner) {
	for {
		now, _, changed := rt.core.Where(car)
		if now.Address != owner.Address || now.Self {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// unanswered decides what follows when the owner gave no answer. A post that may have
// reached it is not repeated: commands would be carried out twice.
func (rt *router) unanswered(r *http.Request, q *routedRequest, owner core.Owner, err error) (done bool, _ error) {
	if r.Context().Err() != nil {
		return true, r.Context().Err()
	}
	var e *peer.Error
	if errors.As(err, &e) {
		switch e.Reason {
		case peer.Stranger, peer.Unknown, peer.Loop, peer.Misled:
			if now, last := time.Now().UnixNano(), rt.refusalAt.Load(); (last == 0 || now-last > int64(refusalPause)) && rt.refusalAt.CompareAndSwap(last, now) {
				rt.log.Error("requests of the HTTP API cannot be passed on to the replica that serves their cars", "replica", owner.Replica, "error", err)
			}
		case peer.Unreachable, peer.Busy:
		}
		if q.post && e.Sent {
			return true, httpapi.NewError(http.StatusServiceUnavailable, "the replica %s, which serves the car %s, did not answer; the messages may or may not have been stored", owner.Replica, q.car)
		}
	}
	return false, nil
}

// forOwner makes the request that is passed on. The client's key stays here.
func (q *routedRequest) forOwner(ctx context.Context, r *http.Request) (*http.Request, error) {
	values := url.Values{}
	if !q.post {
		values = q.query.Values()
	}
	u := &url.URL{Path: PeerPrefix + httpapi.BasePath + httpapi.CarPath("/"+q.kind.String(), q.car), RawQuery: values.Encode()}
	var body io.Reader
	if q.post {
		body = bytes.NewReader(q.body)
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if q.post {
		out.Header.Set("Content-Type", "application/json")
	}
	out.Header.Set(waitHeader, strconv.FormatInt(max(1, time.Until(q.until).Milliseconds()), 10))
	if q.key != "" {
		out.Header.Set(keyHeader, q.key)
	}
	return out, nil
}

// PeerHandler serves the requests that other replicas pass on, below PeerPrefix. They are
// answered here or not at all. It trusts who asks: serve it to replicas only.
func (s *Server) PeerHandler() http.Handler {
	h := *s.trusted
	h.remote, h.router = true, nil
	return http.StripPrefix(PeerPrefix, &h)
}

// remoteWait returns how long the first replica lets a request wait, at most the API's
// own time.
func (h *handler) remoteWait(r *http.Request) time.Duration {
	ms, err := strconv.ParseInt(r.Header.Get(waitHeader), 10, 64)
	if err != nil || ms <= 0 {
		return time.Millisecond
	}
	return min(time.Duration(min(ms, math.MaxInt32))*time.Millisecond, max(h.core.WaitTimeout(), defaultHold))
}

// awaitLoaded waits until the shard of a car that this replica owns is loaded, for a
// moment.
func (h *handler) awaitLoaded(ctx context.Context, car fleet.CarID, limit time.Duration) error {
	timer := time.NewTimer(min(limit, loadTime))
	defer timer.Stop()
	for {
		owner, ready, changed := h.core.Where(car)
		if ready {
			return nil
		}
		if !owner.Self {
			return core.ErrMoved
		}
		select {
		case <-changed:
		case <-timer.C:
			return core.ErrMoved
		case <-h.core.Stopping():
			return core.ErrMoved
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
