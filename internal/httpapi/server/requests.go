package server

import (
	"maps"
	"sync"

	"external-server/internal/httpapi/core"
)

// Stats are the counters of a server since its start and its present state.
type Stats struct {
	core.Stats
	// Requests counts answered requests by route, such as "GET /status", and
	// status code. Route is "other" for paths that do not exist.
	Requests map[RequestKey]int64
	// In a cluster Requests are those of the replica's own clients, whichever replica has
	// answered them. PassedOn are the requests that another replica has answered, Held those
	// that wait for an owner or its answer now, ForOthers those answered for other replicas.
	Held                int
	PassedOn, ForOthers int64
}

// RequestKey is a route and the status code of its answers.
type RequestKey struct {
	Route string
	Code  int
}

// requestCounters count requests.
type requestCounters struct {
	mu        sync.Mutex
	requests  map[RequestKey]int64
	forOthers int64
}

func (c *requestCounters) count(route string, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[RequestKey{route, code}]++
}

// countForOthers counts a request that another replica has passed on and counts too.
func (c *requestCounters) countForOthers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forOthers++
}

func (c *requestCounters) snapshot() (requests map[RequestKey]int64, forOthers int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.requests), c.forOthers
}
