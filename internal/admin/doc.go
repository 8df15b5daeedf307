// Package admin is the operator's endpoint: health, metrics, the REST interface
// and the event stream under /api/v1, and the dashboard. openapi.json describes
// the interface.
//
// It changes nothing itself: what it shows and does is the business of the Source
// it is given. Everything a stranger can reach is bounded: sizes, times, the
// number of requests and of streams. In a cluster it asks the other replicas, and answers
// them. It may import observe, cluster, peer and what the Source
// speaks of.
package admin
