// Package carlist is the list of cars that the admin endpoint answers with: what it says of
// a car, how it is filtered and ordered, and its form as a table for spreadsheets.
package carlist

import "time"

// Brief is a car in the list, light enough for ten thousand of them.
type Brief struct {
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels,omitempty"` // of the configuration
	State    string            `json:"state"`            // waiting, connecting, running
	Since    *time.Time        `json:"since,omitempty"`
	Session  string            `json:"session,omitempty"`
	Resumed  *time.Time        `json:"resumed,omitempty"` // when the session went on after a restart or loss
	LastSeen *time.Time        `json:"last_seen,omitempty"`
	// Suspended: the connection to the broker is lost, and the session, which State still
	// tells, waits for it. Nothing of the car arrives.
	Suspended bool   `json:"suspended,omitempty"`
	Devices   int    `json:"devices"`
	Statuses  uint64 `json:"statuses"`
	Sessions  uint64 `json:"sessions"`
	Ends      uint64 `json:"ends"`
	// Why the car is not connected, or is not served well; for people.
	Why     string `json:"why,omitempty"`
	LastEnd *End   `json:"last_end,omitempty"`
	// In a cluster: the replica that serves the car, the car's shard and its owner's epoch.
	Replica string `json:"replica,omitempty"`
	Shard   *int   `json:"shard,omitempty"`
	Epoch   int64  `json:"epoch,omitempty"`
}

// End is an end of a session, or of an attempt to begin one.
type End struct {
	At          time.Time `json:"at"`
	Reason      string    `json:"reason"`
	Session     string    `json:"session,omitempty"`
	Established bool      `json:"established"`
	Seconds     float64   `json:"seconds"`
	Unanswered  int       `json:"unanswered_commands,omitempty"`
}
