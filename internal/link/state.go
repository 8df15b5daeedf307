package link

import "time"

// Stater is a link that tells how it is. It is optional: what observes the server works
// without.
type Stater interface {
	// State may be called from any goroutine.
	State() State
}

// State is what can be said about the link at one moment.
type State struct {
	// Up tells whether every connection is made and its subscriptions are
	// restored.
	Up bool
	// Since is when Up last changed for one of the connections; zero: not yet
	// connected.
	Since time.Time
	// LastError is why the last connection failed or was lost; "" if none was.
	LastError   string
	Cars        int // attached
	Connections []ConnectionState
	// Refused is how many cars hear nothing because the broker refuses their
	// subscription, or that of their company. Up is false while there is one.
	Refused int
	// RefusedTopic is one of the topics that are refused, "" for none.
	RefusedTopic string
	// Stopped is why the link has stopped serving for good; "" if it has not.
	Stopped string
	// Declined is why sessions are not kept although they should be; "" if they are. A
	// broker that keeps none shows in the connections only.
	Declined string
}

// ConnectionState describes one connection. Counters count since the start.
type ConnectionState struct {
	ClientID               string
	Up                     bool
	Since                  time.Time
	LastError              string
	Answered               time.Time // when the broker answered something last; zero: never, or Options.Heartbeat is not used
	Cars                   int
	Connects               uint64 // successful ones; all but the first are reconnects
	MessagesIn, BytesIn    uint64
	MessagesOut, BytesOut  uint64
	InFlight, Queued       int
	SubscriptionsRefused   uint64 // results of subscriptions; Refused is how many are so now
	Refused                int    // cars, and companies that are watched
	RefusedTopic           string
	DroppedQueueFull       uint64 // Publish found the queue of the car full
	DroppedLinkDown        uint64 // queued or published while the connection was lost
	DroppedDiscarded       uint64 // DiscardPending and Close (DEF-20)
	DroppedTooLarge        uint64 // Publish was given more than MaxPayload
	IgnoredOversized       uint64 // received, payload above MaxPayload
	IgnoredForeign         uint64 // received, of no attached car
	IgnoredRetained        uint64 // received, kept by the broker from before the subscription
	IgnoredBadName         uint64 // received for a watch, name of the car not allowed
	IgnoredRepeatedForeign uint64 // second copies while a watch began or ended

	Version         string // of MQTT: "3.1.1" or "5"
	Kept            bool   // the broker keeps the session when the connection is lost
	Continued       bool   // it had kept the session before this connection
	Reading         bool   // what the broker had kept is being read
	Unacknowledged  int    // received, not acknowledged yet by the receivers
	Resumed         uint64 // connections whose session continued
	Backlog         uint64 // messages that the broker had kept
	Redelivered     uint64 // messages that the broker sent once more
	BarriersGivenUp uint64 // ends of the backlog that could not be told
	Leftovers       uint64 // cars that a kept session knew and this process did not
	TakenOver       uint64 // times that another server had the connection meanwhile
	FlushFailed     uint64 // writes before which the record could not be kept
	MessagesRefused uint64 // by the broker
}

// Sessions sums up the sessions that the broker keeps, over all connections. Counters
// count since the start.
type Sessions struct {
	Kept        int    `json:"kept"` // connections
	Resumed     uint64 `json:"resumed"`
	Backlog     uint64 `json:"backlog"`             // messages
	Redelivered uint64 `json:"redelivered"`         // messages
	EndUnknown  uint64 `json:"backlog_end_unknown"` // times
	Leftovers   uint64 `json:"leftovers"`           // cars
	TakenOver   uint64 `json:"taken_over"`          // times
	Unrecorded  uint64 `json:"unrecorded"`          // writes
	Refused     uint64 `json:"refused"`             // messages, by the broker
}

// Sessions returns the sums.
func (s *State) Sessions() (sum Sessions) {
	for i := range s.Connections {
		c := &s.Connections[i]
		if c.Kept {
			sum.Kept++
		}
		sum.Resumed += c.Resumed
		sum.Backlog += c.Backlog
		sum.Redelivered += c.Redelivered
		sum.EndUnknown += c.BarriersGivenUp
		sum.Leftovers += c.Leftovers
		sum.TakenOver += c.TakenOver
		sum.Unrecorded += c.FlushFailed
		sum.Refused += c.MessagesRefused
	}
	return sum
}
