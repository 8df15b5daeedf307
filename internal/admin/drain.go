package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"external-server/internal/cluster"
	"external-server/internal/peer"
)

// maxReplicaName bounds the name of a replica in a request, in bytes.
const maxReplicaName = 64

// drain reads {"replica": "es-1"}, or nothing for this replica, and makes it give its cars
// to the others. The answer leaves when that begins; /api/v1/server says how far it is.
func (s *Server) drain(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Replica string `json:"replica"`
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil && !errors.Is(err, io.EOF) {
		fail(w, http.StatusBadRequest, fmt.Sprintf("the body cannot be read: %v; expected {\"replica\": \"NAME\"} or nothing", err))
		return
	}
	if decoder.More() || len(body.Replica) > maxReplicaName {
		fail(w, http.StatusBadRequest, "expected {\"replica\": \"NAME\"} or nothing")
		return
	}
	if s.opts.Cluster == nil {
		fail(w, http.StatusConflict, "this server is alone, not a replica of a cluster: stop it, and the next start goes on with its sessions")
		return
	}
	view := s.opts.Cluster.View()
	if view == nil {
		fail(w, http.StatusConflict, "this replica is joining the cluster and serves no car")
		return
	}
	if body.Replica != "" && body.Replica != view.Self {
		s.drainOther(w, r, view, body.Replica)
		return
	}
	if err := s.opts.Cluster.Drain(); err != nil {
		fail(w, http.StatusConflict, err.Error())
		return
	}
	text := "replica " + view.Self + " gives its cars to the others, and takes none until it is started anew"
	if none := noTaker(view); none != "" {
		text = "replica " + view.Self + " " + none + ": it suspends the sessions of its cars, which no replica serves until one takes them; it takes none itself until it is started anew"
	}
	s.told(r, "", text)
	answer(w, http.StatusAccepted, done{Result: text})
}

// noTaker says why no other replica takes the cars of this one; it is empty when one does.
func noTaker(view *cluster.View) string {
	if len(view.Members) < 2 {
		return "is the only one"
	}
	var others []string
	for _, m := range view.Members {
		switch {
		case m.Name == view.Self:
		case m.State == cluster.StateReady:
			return ""
		default:
			others = append(others, m.Name+" is "+m.State)
		}
	}
	return "has no other one that takes cars (" + strings.Join(others, ", ") + ")"
}

// unserved says which cars no replica serves, and why; it is empty when each has one.
func (s *Server) unserved() string {
	if s.opts.Cluster == nil {
		return ""
	}
	view := s.opts.Cluster.View()
	if view == nil {
		return "this replica is joining the cluster and does not know the cars of the others yet"
	}
	n := 0
	for _, owner := range view.Shards {
		if owner.Replica == "" {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of %d shards have no owner", n, len(view.Shards))
	if n == 1 {
		text = fmt.Sprintf("1 of %d shards has no owner", len(view.Shards))
	}
	if self, ok := view.Member(view.Self); ok && self.State == cluster.StateDraining {
		text += "; the replica " + view.Self + " is draining"
		if none := noTaker(view); none != "" {
			text += ", and " + none
		}
	}
	return text + "; /readyz of each replica has its reason"
}

// drainOther passes the request on.
func (s *Server) drainOther(w http.ResponseWriter, r *http.Request, view *cluster.View, name string) {
	m, ok := view.Member(name)
	if !ok {
		var names []string
		for _, m := range view.Members {
			names = append(names, m.Name)
		}
		fail(w, http.StatusNotFound, fmt.Sprintf("no replica %q is a member of the cluster; members are %s", name, strings.Join(names, ", ")))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), gatherTimeout)
	defer cancel()
	out, err := s.forOther(ctx, r, http.MethodPost, "/api/v1/drain", nil, nil)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	reply, err := s.opts.Cluster.Ask(peer.For(ctx, m.Name), m.Address, out)
	if err != nil {
		fail(w, http.StatusBadGateway, fmt.Sprintf("replica %s does not answer: %v", name, err))
		return
	}
	defer func() { _ = reply.Body.Close() }() // read as far as needed
	raw, err := io.ReadAll(io.LimitReader(reply.Body, maxForwarded))
	if err != nil {
		fail(w, http.StatusBadGateway, fmt.Sprintf("replica %s: %v", name, err))
		return
	}
	if reply.StatusCode != http.StatusAccepted {
		fail(w, reply.StatusCode, "replica "+name+": "+detailOf(reply.StatusCode, raw))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(raw) // the client has gone
}
