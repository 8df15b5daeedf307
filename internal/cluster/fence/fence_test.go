package fence_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"external-server/internal/cluster/fence"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// A server whose shard another one has taken falls silent for good; what comes meanwhile goes
// to the new one, once (RES-25).
func TestHigherEpochSilencesForGood(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	a := serve(t, brokerAt(address, "a"), 11, nil)
	a.waitUp(1)
	gateway := dial(t, address)
	answers := watch(t, address, car.String()+fleet.TopicFromServer)
	send(t, gateway, "one")
	testwait.Until(t, "a answers", func() bool { return answers.saw("a one") })

	b := brokerAt(address, "b")
	seize(t, b, 12)
	a.waitFenced()
	if !strings.Contains(a.err.Error(), `"b" with epoch 12`) {
		t.Errorf("the reason does not name the new owner: %v", a.err)
	}
	send(t, gateway, "two")
	if a.port.Publish([]byte("late"), link.Ack{}) || a.port.NotifyDisconnect() {
		t.Error("the port of a fenced link accepts messages")
	}
	server := serve(t, b, 12, nil)
	testwait.Until(t, "b answers what came meanwhile", func() bool { return answers.saw("b two") })
	send(t, gateway, "three")
	testwait.Until(t, "b answers", func() bool { return answers.saw("b three") })
	if n := len(answers.messages()); n != 3 {
		t.Errorf("%d answers to 3 messages", n)
	}
	if a.heard("two") || server.heard("one") {
		t.Error("a message was delivered to the wrong server")
	}
	if _, err := fence.Seize(t.Context(), a.broker, cluster, shard(), a.epoch); !errors.Is(err, link.ErrFenced) {
		t.Errorf("the old server could take the shard back: %v", err)
	}
	send(t, gateway, "four")
	testwait.Until(t, "b answers", func() bool { return answers.saw("b four") })
	if server.up() != 1 {
		t.Error("the new server was disturbed")
	}
}

// A server that is alone with its epoch comes back, whatever has ended its connection.
func TestOwnEpochReconnects(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	a := serve(t, brokerAt(address, "a"), 11, nil)
	a.waitUp(1)
	stranger(t, address)
	a.waitUp(2)
	// An older server that wakes up disturbs, and gives way.
	old := serve(t, brokerAt(address, "old"), 10, nil)
	old.waitFenced()
	gateway, answers := dial(t, address), watch(t, address, car.String()+fleet.TopicFromServer)
	send(t, gateway, "still there?")
	testwait.Until(t, "a answers", func() bool { return answers.saw("a still there?") })
	if e, found, err := fence.Read(t.Context(), a.broker, cluster, shard()); err != nil || !found || e != a.epoch {
		t.Errorf("the broker has %+v, %v, %v", e, found, err)
	}
}

// Servers that all believe come to one owner, the one with the highest epoch, and no older
// epoch is ever seen behind a newer one: a lost owner publishes nothing (RES-25).
func TestManyOwnersComeToOne(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	epochs := watch(t, address, fence.EpochTopic(cluster, shard()))
	const n = 6
	order := rand.Perm(n)
	var replicas [n]*replica
	for _, i := range order {
		replicas[i] = serve(t, brokerAt(address, fmt.Sprint("r", i)), int64(100+i), nil)
	}
	for _, r := range replicas[:n-1] {
		r.waitFenced()
	}
	replicas[n-1].waitUp(1)
	gateway, answers := dial(t, address), watch(t, address, car.String()+fleet.TopicFromServer)
	send(t, gateway, "who?")
	testwait.Until(t, "the last owner answers", func() bool { return answers.saw("r5 who?") })
	last := int64(0)
	for _, m := range epochs.messages() {
		e, err := fence.Decode(m.Payload)
		if err != nil || e.Epoch < last {
			t.Fatalf("epoch %d was published after %d (order %v): %v", e.Epoch, last, order, err)
		}
		last = e.Epoch
	}
}

// The server that was cut off and comes back late finds the epoch and touches nothing, not
// even for the moment in which it has the connection.
func TestLateReturnTouchesNothing(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	b := serve(t, brokerAt(address, "b"), 12, nil)
	b.waitUp(1)
	all := watch(t, address, "#")
	// It has no reason to ask before it connects: only the check behind its CONNACK can tell.
	a := serve(t, brokerAt(address, "a"), 11, nil)
	a.waitFenced()
	b.waitUp(2)
	for _, m := range all.messages() {
		if strings.Contains(string(m.Payload), `"a"`) {
			t.Errorf("the old server has published %q to %s", m.Payload, m.Topic)
		}
	}
}

// Two servers with one epoch cannot be: one of them says what is wrong and stops.
func TestEqualEpochOfAnother(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	a := serve(t, brokerAt(address, "a"), 11, nil)
	a.waitUp(1)
	b := serve(t, brokerAt(address, "b"), 11, nil)
	b.waitFenced()
	if !strings.Contains(b.err.Error(), `"a" claims epoch 11 too`) {
		t.Errorf("the reason is %v", b.err)
	}
	a.waitUp(2)
	if _, err := fence.Seize(t.Context(), b.broker, cluster, shard(), b.epoch); !errors.Is(err, link.ErrFenced) {
		t.Errorf("the epoch was seized: %v", err)
	}
	if kept, err := fence.Seize(t.Context(), a.broker, cluster, shard(), a.epoch); err != nil || !kept {
		t.Errorf("the own epoch cannot be seized again: %v, session kept %v", err, kept)
	}
}

// What a server publishes over a connection begins with its epoch, and a record comes
// before the message that it describes (RES-22, RES-25).
func TestOrderOfWhatIsPublished(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	all := watch(t, address, "#")
	a := serve(t, brokerAt(address, "a"), 11, func(o *mqtt.Options) { o.Presence = "es/presence" })
	a.waitUp(1)
	const n = 500
	for i := range n {
		a.carrier.Put(car, fmt.Appendf(nil, "%d", i))
		if !a.port.Publish(fmt.Appendf(nil, "%d", i), link.Ack{}) {
			t.Fatal("the port refuses")
		}
	}
	testwait.Until(t, "all is published", func() bool { return all.saw(fmt.Sprint(n - 1)) })
	record := -1
	for i, m := range all.messages() {
		var number int
		switch {
		case i == 0:
			if m.Topic != fence.EpochTopic(cluster, shard()) || string(m.Payload) != string(a.epoch.Encode()) {
				t.Errorf("the first message is %q to %s", m.Payload, m.Topic)
			}
		case m.Topic == fence.RecordTopic(cluster, shard(), car):
			if json.Unmarshal(m.Payload, &record) != nil {
				t.Fatalf("record %q", m.Payload)
			}
		case m.Topic == car.String()+fleet.TopicFromServer:
			if json.Unmarshal(m.Payload, &number) != nil || number > record {
				t.Fatalf("message %q came when the record was %d", m.Payload, record)
			}
		}
	}
	testwait.Until(t, "the last record is there", func() bool {
		found, err := fence.Records(t.Context(), a.broker, cluster, shard())
		return err == nil && string(found[car]) == fmt.Sprint(n-1)
	})
}

// What was written before a connection was lost is written again over the next one, and what no
// new owner goes on with is removed.
func TestRecordsAfterALoss(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	a := serve(t, brokerAt(m.Address(), "a"), 11, nil)
	a.waitUp(1)
	a.carrier.Put(car, []byte("a record"))
	records := func() map[fleet.CarID][]byte {
		found, err := fence.Records(t.Context(), a.broker, cluster, shard())
		if err != nil {
			t.Log(err)
		}
		return found
	}
	testwait.Until(t, "the record is there", func() bool { return string(records()[car]) == "a record" })
	m.Kill() // nothing is stored
	m.Restart()
	a.waitUp(2)
	testwait.Until(t, "the record is there again", func() bool { return string(records()[car]) == "a record" })
	b := brokerAt(m.Address(), "b")
	seize(t, b, 12)
	a.waitFenced()
	found := records()
	next := serve(t, b, 12, nil)
	next.waitUp(1)
	next.carrier.Settle(found)
	testwait.Until(t, "the record is gone", func() bool { r := records(); return r != nil && len(r) == 0 })
}

// A record that the broker cannot take is removed rather than left outdated.
func TestRecordTooLarge(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{Extra: "max_packet_size 20000\n"})
	a := serve(t, brokerAt(m.Address(), "a"), 11, nil)
	a.waitUp(1)
	for _, record := range []string{"small", strings.Repeat("x", 30_000), "small again", strings.Repeat("x", fence.MaxRecord+1)} {
		a.carrier.Put(car, []byte(record))
		want := record
		if len(record) > 1000 {
			want = ""
		}
		testwait.Until(t, "the record is replaced", func() bool {
			found, err := fence.Records(t.Context(), a.broker, cluster, shard())
			return err == nil && string(found[car]) == want
		})
	}
	if a.up() != 1 {
		t.Error("the connection was lost")
	}
	if !strings.Contains(a.log.String(), "takes no packet that large") {
		t.Error("nothing says why")
	}
}

// A reader that reads at the same time as others do gets its answer.
func TestReadsAtTheSameTime(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	b := brokerAt(address, "b")
	var reading sync.WaitGroup
	for n := range 32 {
		reading.Go(func() {
			e := fence.Epoch{Epoch: int64(n + 1), Replica: "b"}
			if kept, err := fence.Seize(t.Context(), b, cluster, n, e); err != nil || kept {
				t.Errorf("%v; a session that was never there was kept: %v", err, kept)
			}
			if found, ok, err := fence.Read(t.Context(), b, cluster, n); err != nil || !ok || found != e {
				t.Errorf("shard %d: %+v %v %v", n, found, ok, err)
			}
		})
	}
	reading.Wait()
}
