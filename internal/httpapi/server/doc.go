// Package server is the embedded server of the Fleet Protocol HTTP API: the listener, the
// handler of requests with the checks of keys, and, in a cluster, the router that brings
// each request to the replica that serves its car.
//
// New does all that can fail, Run serves until its context ends, Shutdown stops in order.
// API and RoundTripper let users in the process do without a network. With Options.Cluster
// the other replicas reach this one by PeerHandler.
//
// The package decides nothing about messages: package core does, behind the same
// interface for users in the process and over HTTP.
package server
