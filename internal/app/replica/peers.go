package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"external-server/internal/app/roster"
	"external-server/internal/cluster"
	"external-server/internal/cluster/fence"
	"external-server/internal/fleet"
	"external-server/internal/peer"
	"external-server/internal/session/record"
)

const (
	// offerKept is for how long a shard that was handed over waits to be opened.
	offerKept = 10 * time.Second
	// offerBytes bounds what is handed over of one shard.
	offerBytes = 64 << 20
	// offerTime bounds the way of it.
	offerTime = 5 * time.Second
	// askTime bounds a question to another replica.
	askTime = time.Second
	// connectTime is for how long the Connect of an unknown car looks for the owner of its
	// shard: its gateway gives up after 5 s (GW-1).
	connectTime = 4 * time.Second
	// connectRetry is the pause between two attempts.
	connectRetry = 200 * time.Millisecond
	// connectBytes bounds such a Connect.
	connectBytes = 1 << 20
)

// Answers about a shard.
const (
	peerServing = "serving"
	peerNot     = "not served"
)

// peerShard is what a replica says about a shard.
type peerShard struct {
	Replica string `json:"replica"`
	State   string `json:"state"` // peerServing or peerNot
	Epoch   int64  `json:"epoch,omitempty"`
	// Silent: the broker does not answer this replica, so it cannot take a shard.
	Silent bool `json:"silent,omitempty"`
	Shards int  `json:"shards,omitempty"` // of its cluster; 0: of an earlier version
}

// takenBackHeader says of an offer how often its owner had taken the shard back, see fence.Epoch.
const takenBackHeader = "Taken-Back"

// offer is a shard that its owner has handed over.
type offer struct {
	epoch   int64 // of that owner
	back    int64 // how often it had taken the shard back
	records [][]byte
	fold    *record.Fold
	at      time.Time
}

// offers are those that wait to be opened, one for each shard.
type offers struct {
	mu  sync.Mutex
	all []*offer
}

func newOffers(shards int) *offers { return &offers{all: make([]*offer, shards)} }

func (o *offers) put(n int, of *offer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[n] = of
}

// fits tells whether the owner that the broker knows has served no more since it handed the shard over.
func (of *offer) fits(known fence.Epoch) bool {
	return of != nil && of.epoch == known.Epoch && of.back == known.TakenBack && time.Since(of.at) <= offerKept
}

// take returns what was handed over by the owner that the broker knows, once; nil: nothing was, or
// it is too old.
func (o *offers) take(n int, known fence.Epoch) *offer {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := o.all[n]
	o.all[n] = nil
	if !of.fits(known) {
		return nil
	}
	return of
}

func (o *offers) has(n int, known fence.Epoch) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[n].fits(known)
}

// expire forgets what was not opened in time.
func (o *offers) expire() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, of := range o.all {
		if of != nil && time.Since(of.at) > offerKept {
			o.all[n] = nil
		}
	}
}

// serve answers the other replicas.
func (r *Replica) serve() {
	s := r.opts.Server
	s.HandleWithin("GET /v1/shards/{shard}", peer.Limits{Time: askTime}, r.shardHandler(r.tellShard))
	s.HandleWithin("POST /v1/shards/{shard}", peer.Limits{Body: offerBytes, Requests: len(r.turns), Time: offerTime}, r.shardHandler(r.takeOffer))
	s.HandleWithin("POST /v1/shards/{shard}/cars/{company}/{car}", peer.Limits{Body: connectBytes, Requests: handedOn, Time: 2 * connectTime}, r.shardHandler(r.takeConnect))
}

func (r *Replica) shardHandler(do func(http.ResponseWriter, *http.Request, int)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n, err := strconv.Atoi(req.PathValue("shard"))
		if err != nil || n < 0 || n >= len(r.turns) {
			http.Error(w, fmt.Sprintf("shard %.20q: expected 0 to %d", req.PathValue("shard"), len(r.turns)-1), http.StatusNotFound)
			return
		}
		do(w, req, n)
	})
}

func (r *Replica) tellShard(w http.ResponseWriter, _ *http.Request, n int) {
	out := peerShard{Replica: r.self.Replica, State: peerNot, Silent: r.silent(), Shards: len(r.turns)}
	// What it cannot serve it does not claim: the others may take it.
	if s := r.shards[n].Load(); s != nil && r.Health() == nil {
		out.State, out.Epoch = peerServing, s.epoch()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the peer has gone
}

// askPeer asks the replica at the address about a shard.
func (r *Replica) askPeer(ctx context.Context, address string, n int) (out peerShard, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://peer/v1/shards/%d", n), nil)
	if err != nil {
		return out, err
	}
	answer, err := r.opts.Client.Do(ctx, address, req)
	if err != nil {
		return out, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return out, fmt.Errorf("the replica at %s answers with %s", address, answer.Status)
	}
	err = json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&out)
	return out, err
}

// offer sends what a journal says to the next owner of its shard.
func (r *Replica) offer(ctx context.Context, s *shard, to cluster.Member) error {
	fold, err := s.Reread()
	if err != nil {
		return err
	}
	body := binary.AppendUvarint(nil, uint64(s.epoch()))
	fold.Snapshot(func(record []byte) {
		body = append(binary.AppendUvarint(body, uint64(len(record))), record...)
	})
	ctx, cancel := context.WithTimeoutCause(ctx, offerTime, errors.New("it does not answer"))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://peer/v1/shards/%d", s.Number), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set(takenBackHeader, strconv.FormatInt(s.standing.Epoch().TakenBack, 10))
	answer, err := r.opts.Client.Do(peer.For(ctx, to.Name), to.Address, req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // what there is of it
		return fmt.Errorf("it answers with %s: %s", answer.Status, bytes.TrimSpace(text))
	}
	return nil
}

func (r *Replica) takeOffer(w http.ResponseWriter, req *http.Request, n int) {
	body, err := io.ReadAll(req.Body)
	if err == nil {
		var of *offer
		if of, err = parseOffer(body); err == nil {
			// A peer of an earlier version does not send it. A shard that it has taken back is told from this one by its
			// time only.
			if h := req.Header.Get(takenBackHeader); h != "" {
				of.back, err = strconv.ParseInt(h, 10, 64)
			}
		}
		if err == nil {
			r.offers.put(n, of)
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	http.Error(w, "a shard that is handed over: "+err.Error(), http.StatusBadRequest)
}

// parseOffer reads what offer has sent.
func parseOffer(body []byte) (*offer, error) {
	epoch, k := binary.Uvarint(body)
	if k <= 0 || epoch == 0 || epoch > 1<<62 {
		return nil, errors.New("it does not begin with an epoch")
	}
	of := &offer{epoch: int64(epoch), fold: record.NewFold(), at: time.Now()}
	for body = body[k:]; len(body) > 0; {
		size, k := binary.Uvarint(body)
		if k <= 0 || size > uint64(len(body)-k) {
			return nil, errors.New("a record is cut off")
		}
		record := body[k : k+int(size)]
		body = body[k+int(size):]
		if err := of.fold.Apply(record); err != nil {
			return nil, err
		}
		of.records = append(of.records, record)
	}
	return of, nil
}

// Elsewhere hands the Connect of an unknown car to the owner of its shard. The caller holds
// the lock of the roster, and keeps connect.
func (r *Replica) Elsewhere(id fleet.CarID, connect []byte) {
	select {
	case r.scouts <- struct{}{}:
	default:
		r.limit.Log(r.log, slog.LevelWarn, "more unknown cars connect at the same time than can be handed on to the owners of their shards; their gateways try again",
			slog.String("car", id.Car), slog.Int("limit", handedOn))
		return
	}
	connect = bytes.Clone(connect)
	r.handing.Go(func() {
		defer func() { <-r.scouts }()
		ctx, cancel := context.WithTimeout(r.life, connectTime)
		defer cancel()
		if err := r.find(ctx, id, connect); err != nil && r.life.Err() == nil {
			r.limit.Log(r.log, slog.LevelWarn, "a car was found and its Connect could not be handed to the owner of its shard; its gateway tries again",
				slog.String("car", id.Car), slog.Any("error", err))
		}
	})
}

// find gives a Connect to the owner of its shard, as soon as there is one.
func (r *Replica) find(ctx context.Context, id fleet.CarID, connect []byte) error {
	n := r.journals.Number(id)
	for {
		err := r.cars.Welcome(ctx, id, connect)
		if errors.Is(err, roster.ErrNotOurs) {
			err = r.sendConnect(ctx, n, id, connect)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(connectRetry):
		}
	}
}

func (r *Replica) sendConnect(ctx context.Context, n int, id fleet.CarID, connect []byte) error {
	owner := r.cluster.View().Shards[n]
	if owner.Address == "" || owner.Replica == r.self.Replica {
		return fmt.Errorf("shard %d has no owner", n)
	}
	url := fmt.Sprintf("http://peer/v1/shards/%d/cars/%s/%s", n, id.Company, id.Car)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(connect))
	if err != nil {
		return err
	}
	answer, err := r.opts.Client.Do(peer.For(ctx, owner.Replica), owner.Address, req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("replica %s answers with %s", owner.Replica, answer.Status)
	}
	return nil
}

func (r *Replica) takeConnect(w http.ResponseWriter, req *http.Request, n int) {
	id := fleet.CarID{Company: req.PathValue("company"), Car: req.PathValue("car")}
	if id.Company != r.opts.Config().Company || !fleet.ValidName(id.Car) || r.journals.Number(id) != n {
		http.Error(w, "this is no car of the shard: are company and shards the same for all replicas?", http.StatusBadRequest)
		return
	}
	connect, err := io.ReadAll(req.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch err := r.cars.Welcome(req.Context(), id, connect); {
	case errors.Is(err, roster.ErrNotOurs):
		http.Error(w, "the shard is not served here", http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
