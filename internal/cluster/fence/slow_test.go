package fence_test

import (
	"testing"
	"time"

	"external-server/internal/cluster/fence"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// Records are read to their end from a broker that is far away or busy, as long as it answers: with 0.1 s
// each way the parts of a shard take longer than one answer may.
func TestRecordsOfSlowBroker(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	a := serve(t, brokerAt(m.Address(), "a"), 11, nil)
	a.waitUp(1)
	a.carrier.Put(car, []byte("a record"))
	slow := badnetwork.New(t, m.Address())
	slow.Set(badnetwork.Faults{Latency: 100 * time.Millisecond})
	testwait.Until(t, "the record is read", func() bool {
		found, err := fence.Records(t.Context(), brokerAt(slow.Address(), "b"), cluster, shard())
		if err != nil {
			t.Fatal(err)
		}
		return string(found[car]) == "a record"
	})
}
