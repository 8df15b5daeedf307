package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/peer"
)

// memberInfo is a replica in /api/v1/server.
type memberInfo struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason,omitempty"`
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Shards  int    `json:"shards"`
	// SameConfiguration says that what the replicas must agree on is the same as here.
	SameConfiguration bool `json:"same_configuration"`
}

// shardInfo is a shard in /api/v1/server.
type shardInfo struct {
	Shard   int    `json:"shard"`
	Replica string `json:"replica,omitempty"` // none: without owner
	Epoch   int64  `json:"epoch,omitempty"`
	State   string `json:"state,omitempty"`
	To      string `json:"to,omitempty"` // the replica that it is handed over to
}

// clusterInfo is what /api/v1/server says of the cluster.
type clusterInfo struct {
	Self      string       `json:"self"`
	Connected bool         `json:"connected"` // to etcd
	Since     *time.Time   `json:"since,omitempty"`
	Problem   string       `json:"problem,omitempty"`
	Scout     string       `json:"scout,omitempty"`
	Members   []memberInfo `json:"members"`
	Shards    []shardInfo  `json:"shards"`
}

func (s *Server) clusterInfo() *clusterInfo {
	if s.opts.Cluster == nil {
		return nil
	}
	view := s.opts.Cluster.View()
	if view == nil {
		return nil
	}
	out := &clusterInfo{Self: view.Self, Connected: view.Connected, Since: when(view.Since), Problem: view.Problem, Scout: view.Scout,
		Members: []memberInfo{}, Shards: make([]shardInfo, len(view.Shards))}
	count := map[string]int{}
	for n, o := range view.Shards {
		out.Shards[n] = shardInfo{Shard: n, Replica: o.Replica, Epoch: o.Epoch, State: o.State, To: o.To}
		count[o.Replica]++
	}
	self, _ := view.Member(view.Self)
	for _, m := range view.Members {
		out.Members = append(out.Members, memberInfo{Name: m.Name, Address: m.Address, Version: m.Version, State: m.State, Reason: m.Reason,
			Host: m.Host, PID: m.PID, Shards: count[m.Name], SameConfiguration: self.Fingerprint == m.Fingerprint})
	}
	return out
}

// replicaResult is what a reload of all has done at one replica.
type replicaResult struct {
	Replica string `json:"replica"`
	Result  string `json:"result,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// reloadAll reloads the configuration of the other replicas too, one after the other. The
// first was this one: when its file is wrong, none is touched.
func (s *Server) reloadAll(w http.ResponseWriter, r *http.Request, changes string) {
	view := s.opts.Cluster.View()
	results := []replicaResult{{Replica: view.Self, Result: changes}}
	failed := false
	for _, m := range s.others(r) {
		result := replicaResult{Replica: m.Name}
		text, err := s.reloadAt(r, m)
		if err != nil {
			failed, result.Problem = true, err.Error()
		} else {
			result.Result = text
		}
		results = append(results, result)
	}
	var lines []string
	for _, one := range results {
		lines = append(lines, one.Replica+": "+one.Result+one.Problem)
	}
	text := strings.Join(lines, "; ")
	if failed {
		fail(w, http.StatusBadGateway, "not all replicas have reloaded their configuration. "+text)
		return
	}
	answer(w, http.StatusOK, struct {
		done
		Replicas []replicaResult `json:"replicas"`
	}{done{text}, results})
}

func (s *Server) reloadAt(r *http.Request, m cluster.Member) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), reloadTimeout)
	defer cancel()
	out, err := s.forOther(ctx, r, http.MethodPost, "/api/v1/reload", nil, nil)
	if err != nil {
		return "", err
	}
	answer, err := s.opts.Cluster.Ask(peer.For(ctx, m.Name), m.Address, out)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxForwarded))
	if err != nil {
		return "", err
	}
	var said done
	if answer.StatusCode != http.StatusOK {
		return "", errors.New(detailOf(answer.StatusCode, raw))
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return "", fmt.Errorf("its answer cannot be read: %w", err)
	}
	return said.Result, nil
}

// allParameter tells whether a reload is to be that of all replicas.
func (s *Server) allParameter(r *http.Request) (all bool, err error) {
	for key := range r.URL.Query() {
		if key != "all" {
			return false, fmt.Errorf("parameter %q is not known; expected all", key)
		}
	}
	value := r.URL.Query().Get("all")
	if !slices.Contains([]string{"", "true", "false"}, value) {
		return false, fmt.Errorf("all is %q; expected true or false", value)
	}
	if value == "true" && (s.opts.Cluster == nil || s.opts.Cluster.View() == nil) {
		return false, errors.New("this server belongs to no cluster; reload it without all")
	}
	return value == "true", nil
}
