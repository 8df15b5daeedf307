package faults

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// announced is what an owner of a shard publishes about itself.
type announced struct {
	Epoch   int64  `json:"epoch"`
	Replica string `json:"replica"`
}

// use is one use of the register that a shard's epoch is.
type use struct {
	kind       useKind
	connection int
	shard      int
	value      announced
	call, end  time.Duration // since the recorder began; end is never without an acknowledgement
}

type useKind string

const (
	announce    useKind = "announces"
	read        useKind = "reads"
	answerUnder useKind = "answers a car under"
)

// never is the end of what the broker has not acknowledged: it may have had its effect at
// any time since, or none.
const never = time.Duration(math.MaxInt64)

func (u use) String() string {
	end := "is never acknowledged"
	if u.end != never {
		end = fmt.Sprintf("is done at %v", u.end)
	}
	return fmt.Sprintf("shard %d: connection %d %s epoch %d of %s at %v, which %s", u.shard, u.connection, u.kind, u.value.Epoch, u.value.Replica, u.call, end)
}

// register is the epoch of one shard as the fence needs it. An announcement is higher than
// all before, or is repeated by the same replica. Who reads gets what was announced last. Who answers a
// car has announced last: a reader that knows. A history that fits is one in which each use can be
// given a moment between its call and its end so that this holds.
var register = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		var parts [][]porcupine.Operation
		place := make(map[int]int)
		for _, op := range history {
			shard := op.Input.(use).shard
			n, ok := place[shard]
			if !ok {
				n = len(parts)
				place[shard], parts = n, append(parts, nil)
			}
			parts[n] = append(parts[n], op)
		}
		return parts
	},
	Init: func() []any { return []any{announced{}} },
	Step: func(state, input, _ any) []any {
		now, u := state.(announced), input.(use)
		var after []any
		if u.kind == announce && (u.value.Epoch > now.Epoch || u.value == now) || u.kind != announce && u.value == now {
			after = append(after, u.value)
		}
		if u.end == never && (len(after) == 0 || after[0] != state) {
			after = append(after, state) // it never came to the broker
		}
		return after
	},
	DescribeOperation: func(input, _ any) string { return input.(use).String() },
}).ToModel() //nolint:gochecknoglobals // it never changes

// judgeEpochs tells what is wrong with a history; "" when it fits.
func judgeEpochs(uses []use) string {
	var history []porcupine.Operation
	for _, u := range uses {
		if u.kind == answerUnder && u.end == never {
			continue // it may never have come to the broker, and changes nothing
		}
		history = append(history, porcupine.Operation{ClientId: u.connection, Input: u, Call: int64(u.call), Return: int64(u.end)})
	}
	result, info := porcupine.CheckOperationsVerbose(register, history, testwait.Patience)
	switch result {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return fmt.Sprintf("whether the uses of epochs fit could not be told within %v", testwait.Patience)
	}
	return "the uses of the epochs do not fit: " + misfit(history, info)
}

// misfit names the first use that is in none of the longest orders that were found.
func misfit(history []porcupine.Operation, info porcupine.LinearizationInfo) string {
	fits := make(map[use]bool)
	for _, shard := range info.PartialLinearizationsOperations() {
		longest := 0
		for _, order := range shard {
			longest = max(longest, len(order))
		}
		for _, order := range shard {
			for _, op := range order {
				if len(order) == longest {
					fits[op.Input.(use)] = true
				}
			}
		}
	}
	for _, op := range history {
		if u := op.Input.(use); !fits[u] {
			return u.String()
		}
	}
	return "no single use is to blame"
}

// rises is the number of different epochs that were announced.
func (r *epochRecorder) rises() int {
	uses, _ := r.history()
	different := make(map[string]bool)
	for _, u := range uses {
		if u.kind == announce && u.end != never {
			different[fmt.Sprint(u.shard, u.value)] = true
		}
	}
	return len(different)
}

// verdict demands that the uses of each shard's epoch fit.
func (r *epochRecorder) verdict(t testing.TB) string {
	t.Helper()
	uses, broken := r.history()
	for _, text := range broken {
		t.Error(text)
	}
	if text := judgeEpochs(uses); text != "" {
		t.Error(text)
	}
	counts := make(map[useKind]int)
	for _, u := range uses {
		if u.end != never {
			counts[u.kind]++
		}
	}
	if counts[announce] == 0 || counts[answerUnder] == 0 {
		t.Errorf("nothing was recorded: %v", counts)
	}
	return fmt.Sprintf("%d epochs, each above the one before; %d reads of them and %d answers fit", r.rises(), counts[read], counts[answerUnder])
}

// The judge of the epochs finds what was forged.
func TestEpochsAreJudged(t *testing.T) {
	t.Parallel()
	a5, b7 := announced{5, "a"}, announced{7, "b"}
	at := func(kind useKind, connection int, value announced, call, end time.Duration) use {
		return use{kind: kind, connection: connection, shard: 1, value: value, call: call, end: end}
	}
	other := at(announce, 9, announced{3, "a"}, 1, 30)
	other.shard = 2
	for name, tt := range map[string]struct {
		uses []use
		fits bool
	}{
		"one after the other": {[]use{at(announce, 1, a5, 1, 2), at(answerUnder, 1, a5, 3, 4), at(announce, 2, b7, 5, 6), at(read, 3, b7, 7, 8), at(answerUnder, 2, b7, 9, 10), other}, true},
		"said again":          {[]use{at(announce, 1, a5, 1, 2), at(announce, 1, a5, 3, 4), at(answerUnder, 1, a5, 5, 6)}, true},
		// The read may have been served before the announcement that ends earlier.
		"a read meanwhile":                         {[]use{at(announce, 1, a5, 1, 2), at(announce, 2, b7, 4, 6), at(read, 3, a5, 3, 8)}, true},
		"never acknowledged, and late":             {[]use{at(announce, 1, a5, 1, never), at(announce, 2, b7, 2, 3), at(answerUnder, 2, b7, 4, 5)}, true},
		"never acknowledged, and read":             {[]use{at(announce, 1, a5, 1, never), at(read, 3, a5, 2, 3), at(announce, 2, b7, 4, 5)}, true},
		"an answer that never arrived":             {[]use{at(announce, 1, a5, 1, 2), at(announce, 2, b7, 3, 4), at(answerUnder, 1, a5, 5, never)}, true},
		"an old owner answers":                     {[]use{at(announce, 1, a5, 1, 2), at(announce, 2, b7, 3, 4), at(answerUnder, 1, a5, 5, 6)}, false},
		"an old owner answers between others":      {[]use{at(announce, 1, a5, 1, 2), at(announce, 2, b7, 3, 4), at(answerUnder, 2, b7, 5, 7), at(answerUnder, 1, a5, 5, 7)}, false},
		"an epoch falls":                           {[]use{at(announce, 2, b7, 1, 2), at(announce, 1, a5, 3, 4)}, false},
		"two replicas with one epoch":              {[]use{at(announce, 1, a5, 1, 2), at(announce, 2, announced{5, "b"}, 3, 4)}, false},
		"an old epoch is read":                     {[]use{at(announce, 1, a5, 1, 2), at(announce, 2, b7, 3, 4), at(read, 3, a5, 5, 6)}, false},
		"an answer before the announcement":        {[]use{at(announce, 1, a5, 1, 2), at(answerUnder, 2, b7, 3, 4), at(announce, 2, b7, 5, 6)}, false},
		"an answer without announcement":           {[]use{at(announce, 1, a5, 1, 2), at(answerUnder, 2, announced{}, 3, 4)}, false},
		"what was read is not read a moment later": {[]use{at(announce, 1, a5, 1, 2), at(announce, 2, b7, 3, never), at(read, 3, b7, 4, 5), at(read, 3, a5, 6, 7)}, false},
	} {
		if text := judgeEpochs(tt.uses); (text == "") != tt.fits {
			t.Errorf("%s: %q", name, text)
		}
	}
}

// The recorder notes what clients do at a real broker, and a server that answers without being the owner
// any more is found.
func TestRecorderFindsAnOldOwner(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	r := newRecorder(t, m.Address())
	dial := func(id string) *brokertest.Peer {
		t.Helper()
		p, err := brokertest.Dial(brokertest.PeerOptions{Address: r.Address(), ClientID: id})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Conn.Close() })
		return p
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first, second := dial("es-fleet-4"), dial("es-other-4") // the second does not take the connection over
	must(first.Retain("es/fleet/4/epoch", []byte(`{"epoch":5,"replica":"a"}`)))
	must(first.Publish(company+"/car/external_server", []byte("answer"), false))
	reader := dial("es-fleet-member-c")
	must(reader.Subscribe(0, "es/fleet/4/epoch"))
	if got, err := reader.Receive(testwait.Patience); err != nil || string(got.Payload) != `{"epoch":5,"replica":"a"}` {
		t.Fatalf("%+v %v", got, err)
	}
	uses, broken := r.history()
	if len(uses) != 3 || len(broken) > 0 || judgeEpochs(uses) != "" || uses[2].kind != read || r.shards() != 1 {
		t.Fatalf("%v %v %s", uses, broken, judgeEpochs(uses))
	}
	must(second.Retain("es/fleet/4/epoch", []byte(`{"epoch":7,"replica":"b"}`)))
	must(first.Publish(company+"/car/external_server", []byte("late answer"), false))
	uses, _ = r.history()
	if text := judgeEpochs(uses); len(uses) != 5 || text == "" {
		t.Errorf("%q: %v", text, uses)
	} else {
		t.Log(text)
	}
}
