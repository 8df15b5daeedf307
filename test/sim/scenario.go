package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"external-server/internal/fleet"
)

// Scenario is everything that distinguishes one history from another. It is
// drawn from a seed; Shrink removes Actions from it.
type Scenario struct {
	Seed         uint64
	Devices      []fleet.Device  // of the car, present or not
	Present      []bool          // at the start
	Every        []time.Duration // pause between statuses of each device
	Queue        int             // statuses a module's queue takes
	Outgoing     int             // messages the server's queue to the broker takes
	MaxAhead     int
	MaxPending   int
	MaxUnacked   int    // 0: the process asks for no room and hands over every command at once
	StatusBase   uint32 // the gateway's first status counter; 1 with the real one
	FirstCommand uint32
	SendInvalid  bool          // CMD-6
	CommandEvery time.Duration // mean pause between commands of one module, 0: none
	Delay        time.Duration // greatest one-way delay of the network
	Faults       time.Duration // nothing goes wrong after this time
	End          time.Duration
	Actions      []Action
}

// Kind is what an Action does.
type Kind uint8

// Kinds of actions. The first two are no faults.
const (
	Join Kind = iota
	Leave
	CutGateway    // the gateway's connection to the broker breaks
	CutServer     // the server's connection to the broker breaks
	RestartBroker // both break
	Lose          // messages are lost with probability P
	Duplicate     // messages arrive twice, some marked as redelivered
	Reorder       // messages overtake each other
	Congest       // the server's messages wait in its queue
	RestartGateway
	KillServer
	StopServer
	PauseServer
	StepClock
	StallModule
	SlowModule
	RefuseDevices
	CrashModule
	Operator // ends the session or asks for a new one
	Rogue    // a message that no gateway would send now
	kinds
)

var kindNames = [kinds]string{"device joins", "device leaves", "cut gateway", "cut server", "restart broker", "lose messages",
	"duplicate messages", "reorder messages", "congest server", "restart gateway", "kill server", "stop server", "pause server",
	"step clock", "stall module", "slow module", "refuse devices", "crash module", "operator", "rogue message"}

// Action is one thing that happens to the car, its server or the network.
type Action struct {
	At   time.Duration
	Kind Kind
	For  time.Duration // how long the fault lasts, or by how much the clock steps
	N    int           // device, module or choice
	P    float64       // probability
}

// String is one line of a printed history.
func (a Action) String() string {
	s := fmt.Sprintf("%10v %s", a.At.Round(time.Millisecond), kindNames[a.Kind])
	if a.For != 0 {
		s += fmt.Sprintf(" for %v", a.For.Round(time.Millisecond))
	}
	switch a.Kind {
	case Join, Leave, StallModule, SlowModule, RefuseDevices, CrashModule, Rogue:
		s += fmt.Sprintf(" #%d", a.N)
	case Lose, Duplicate, Reorder:
		s += fmt.Sprintf(" p=%.2f", a.P)
	}
	return s
}

// String prints the scenario for a person.
func (s *Scenario) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: queues %d and %d, ahead %d, pending %d, unacknowledged %d, counters from %d and %d, send_invalid_command %v, a command per %v, delay up to %v\n",
		s.Seed, s.Queue, s.Outgoing, s.MaxAhead, s.MaxPending, s.MaxUnacked, s.StatusBase, s.FirstCommand, s.SendInvalid, s.CommandEvery, s.Delay)
	for i, d := range s.Devices {
		fmt.Fprintf(&b, "  device #%d %v priority %d every %v, present %v\n", i, d, d.Priority, s.Every[i].Round(time.Millisecond), s.Present[i])
	}
	for _, a := range s.Actions {
		fmt.Fprintf(&b, "  %v\n", a)
	}
	fmt.Fprintf(&b, "  %10v no faults from here\n", s.Faults)
	return b.String()
}

// pool are devices a car may have: of three configured modules, of one the
// server does not know, of a type its module does not know, without a role.
var pool = [...]fleet.Device{
	{Module: 1, Type: 1, Role: "driving", Name: "autonomy"},
	{Module: 2, Type: 2, Role: "button", Name: "left", Priority: 1},
	{Module: 2, Type: 4, Role: "lamp", Name: "front"},
	{Module: 3, Type: 9, Role: "gate", Name: "g", Priority: 2},
	{Module: 3, Type: 9, Role: "gate2", Name: ""},
	{Module: 7, Type: 1, Role: "alien", Name: "a"},
	{Module: 1, Type: 5, Role: "odd", Name: "o", Priority: 3},
	{Module: 3, Type: 1, Role: "", Name: "nameless"},
}

// moduleNumbers are the configured modules in the order of configuration.
var moduleNumbers = [...]int32{2, 1, 3}

func configured(module int32) bool { return slices.Contains(moduleNumbers[:], module) }

func supports(module int32, deviceType uint32) bool {
	switch module {
	case 1:
		return deviceType == 1
	case 2:
		return deviceType >= 1 && deviceType <= 4
	}
	return module == 3
}

// served tells whether a module takes the device, if it does not refuse it.
func served(d fleet.Device) bool {
	return configured(d.Module) && supports(d.Module, d.Type) && d.Role != ""
}

// New draws the scenario of a seed. Which kinds of faults it has is drawn too:
// histories with few kinds find what those with all kinds hide, and a quarter of
// them have none at all, so that nothing excuses the server.
func New(seed uint64) *Scenario {
	rnd := rand.New(rand.NewPCG(seed, 1))
	pick := func(n int) int { return rnd.IntN(n) }
	upTo := func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d) + 1)) }
	s := &Scenario{
		Seed:       seed,
		Queue:      []int{2, 8, 64}[pick(3)],
		Outgoing:   []int{24, 64}[pick(2)],
		MaxAhead:   []int{4, 40, 200}[pick(3)],
		MaxPending: []int{2, 100}[pick(2)],
		MaxUnacked: []int{0, 2, 50}[pick(3)],
		StatusBase: []uint32{1, 1, 0, 0xfffffff0}[pick(4)],
		Delay:      []time.Duration{time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond}[pick(3)],
	}
	if pick(3) == 0 {
		s.FirstCommand = 0xfffffffa
	}
	if pick(5) > 0 {
		s.CommandEvery = []time.Duration{300 * time.Millisecond, 3 * time.Second}[pick(2)]
	}
	s.SendInvalid = pick(6) == 0
	for _, i := range rnd.Perm(len(pool))[:1+pick(5)] {
		s.Devices = append(s.Devices, pool[i])
		s.Present = append(s.Present, len(s.Present) == 0 || pick(3) > 0)
		s.Every = append(s.Every, []time.Duration{300 * time.Millisecond, 2 * time.Second, 15 * time.Second}[pick(3)])
	}
	if pick(8) > 0 && !served(s.Devices[0]) { // mostly something for a module to do
		s.Devices[0] = pool[1+pick(3)]
		for i := 1; i < len(s.Devices); i++ {
			if s.Devices[i] == s.Devices[0] {
				s.Devices[i] = pool[7]
			}
		}
		s.dropRepeated()
	}
	s.Faults = 30*time.Second + upTo(90*time.Second)
	s.End = s.Faults + 160*time.Second
	s.draw(rnd)
	return s
}

func (s *Scenario) dropRepeated() {
	for i := len(s.Devices) - 1; i > 0; i-- {
		if slices.Contains(s.Devices[:i], s.Devices[i]) {
			s.Devices = slices.Delete(s.Devices, i, i+1)
			s.Present = slices.Delete(s.Present, i, i+1)
			s.Every = slices.Delete(s.Every, i, i+1)
		}
	}
}

// draw adds the actions.
func (s *Scenario) draw(rnd *rand.Rand) {
	var enabled []Kind
	switch rnd.IntN(4) {
	case 0: // calm: only devices that come and go
	case 1: // one kind of fault
		enabled = []Kind{CutGateway + Kind(rnd.IntN(int(kinds-CutGateway)))}
	default:
		share := 1 + rnd.IntN(3)
		for k := CutGateway; k < kinds; k++ {
			if rnd.IntN(4) < share {
				enabled = append(enabled, k)
			}
		}
	}
	for range rnd.IntN(3) {
		i := rnd.IntN(len(s.Devices))
		at := time.Duration(rnd.Int64N(int64(s.Faults)))
		s.Actions = append(s.Actions,
			Action{At: at, Kind: Leave, N: i},
			Action{At: min(s.Faults, at+time.Duration(rnd.Int64N(int64(25*time.Second)))), Kind: Join, N: i})
	}
	if len(enabled) > 0 {
		for range 1 + rnd.IntN(10) {
			a := Action{
				At:   time.Duration(rnd.Int64N(int64(s.Faults))),
				Kind: enabled[rnd.IntN(len(enabled))],
				N:    rnd.IntN(1000),
				P:    rnd.Float64() / 2,
			}
			switch rnd.IntN(3) {
			case 0:
				a.For = time.Duration(rnd.Int64N(int64(200 * time.Millisecond)))
			case 1:
				a.For = time.Duration(rnd.Int64N(int64(8 * time.Second)))
			case 2:
				a.For = time.Duration(rnd.Int64N(int64(45 * time.Second)))
			}
			if a.Kind == StepClock && rnd.IntN(2) == 0 {
				a.For = -a.For
			}
			a.For = min(a.For, s.Faults-a.At)
			s.Actions = append(s.Actions, a)
			if a.Kind == Rogue { // rogues come in groups
				for range rnd.IntN(12) {
					a.At = min(a.At+time.Duration(rnd.Int64N(int64(2*time.Second))), s.Faults)
					a.N = rnd.IntN(1000)
					s.Actions = append(s.Actions, a)
				}
			}
		}
	}
	slices.SortStableFunc(s.Actions, func(a, b Action) int { return cmp.Compare(a.At, b.At) })
}
