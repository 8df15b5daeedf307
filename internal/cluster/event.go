package cluster

import "fmt"

// EventKind says what has happened.
type EventKind int

// Events.
const (
	EventTick     EventKind = iota // time has passed
	EventRegistry                  // Registry: what etcd holds now
	EventEtcd                      // OK: whether etcd answers
	EventHealth                    // Err: what Host.Health says
	EventAnswered                  // Shard, Answer, Err: of Host.Ask
	EventClaimed                   // Shard, OK: a claim was tried; the registry has it when OK
	EventOpened                    // Shard, Err: Host.Open has returned
	EventClosed                    // Shard, Err: Host.Close has returned
	EventReleased                  // Shard, OK: a claim was given up
	EventRaised                    // Shard, OK: a higher epoch was written
	EventLost                      // Shard: the broker says that another replica serves it
	EventDrain                     // this replica is about to end
	EventAnyCar                    // OK: a reload has changed whether cars found by "*" are served
)

// Event is something that has happened.
type Event struct {
	Kind     EventKind
	Registry *Registry
	Shard    int
	OK       bool
	Err      error
	Answer   Answer
}

// ActionKind says what is to be done.
type ActionKind int

// Actions. The first ones write to etcd, for one shard in the order given.
const (
	ActionPublish ActionKind = iota // Member: State, Reason and Refuses of this replica
	ActionClaim                     // Shard, Base: claim it if there is no claim; EventClaimed follows
	ActionRelease                   // Shard, Revision: delete the claim if it is that one; EventReleased follows
	ActionMark                      // Shard, Revision, State, To: say what is done with the shard
	ActionRaise                     // Shard, Revision, Base: a higher epoch; EventRaised follows
	ActionScout                     // claim the scout's role if there is no claim
	ActionNoScout                   // give it up
	ActionAsk                       // Shard: Host.Ask; EventAnswered follows
	ActionOpen                      // Shard, Epoch: Host.Open; EventOpened follows
	ActionClose                     // Shard, To, Lost: Host.Close; EventClosed follows
)

// Action is something to be done.
type Action struct {
	Kind     ActionKind
	Shard    int
	Epoch    int64
	Revision int64
	Base     int64
	State    string
	To       Member
	Lost     bool
	Again    bool // with ActionOpen: the shard is served already
	Promised bool // with ActionOpen: the owner before has handed it over
	Member   Member
}

// String is for scripts and logs.
func (a Action) String() string {
	switch a.Kind {
	case ActionPublish:
		text := "publish " + a.Member.State
		if a.Member.Reason != "" {
			text += fmt.Sprintf(" %q", a.Member.Reason)
		}
		if len(a.Member.Refuses) > 0 {
			text += fmt.Sprintf(" refuses=%v", a.Member.Refuses)
		}
		return text
	case ActionClaim:
		if a.Base > 0 {
			return fmt.Sprintf("claim %d base=%d", a.Shard, a.Base)
		}
		return fmt.Sprintf("claim %d", a.Shard)
	case ActionRelease:
		return fmt.Sprintf("release %d", a.Shard)
	case ActionMark:
		if a.To.Name != "" {
			return fmt.Sprintf("mark %d %s to=%s", a.Shard, a.State, a.To.Name)
		}
		return fmt.Sprintf("mark %d %s", a.Shard, a.State)
	case ActionRaise:
		return fmt.Sprintf("raise %d base=%d", a.Shard, a.Base)
	case ActionScout:
		return "claim scout"
	case ActionNoScout:
		return "release scout"
	case ActionAsk:
		return fmt.Sprintf("ask %d", a.Shard)
	case ActionOpen:
		return fmt.Sprintf("open %d epoch=%d", a.Shard, a.Epoch)
	case ActionClose:
		switch {
		case a.Lost:
			return fmt.Sprintf("close %d lost", a.Shard)
		case a.To.Name != "":
			return fmt.Sprintf("close %d to=%s", a.Shard, a.To.Name)
		}
		return fmt.Sprintf("close %d suspend", a.Shard)
	}
	return fmt.Sprintf("action %d", a.Kind)
}
