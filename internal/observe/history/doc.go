// Package history keeps what the counters of a server said during the last hour, in
// memory of a fixed size: the readings themselves for conditions over time (Window), and
// points to draw (Point).
//
// It reads no clock and starts no goroutine: readings come in with their time. It knows
// metrics by name and imports nothing of the project.
package history

import "time"

// Step is the time between two readings, and Kept how many of them are kept: an hour.
const (
	Step = 10 * time.Second
	Kept = 360
)

// MaxSeries bounds the series that are kept; more are left out. The labels of the
// metrics read come from fixed lists and from the configuration, so that an ordinary
// server has less than a hundred.
const MaxSeries = 1000
