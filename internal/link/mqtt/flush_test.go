package mqtt_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/mqtt/wire"
)

// What was decided about a message is on record before its acknowledgement or its answer is
// on the wire, whichever goroutine writes.
func TestRecordBeforeWrite(t *testing.T) {
	for name, waits := range map[string]bool{"reader writes": false, "writer writes": true} {
		t.Run(name, func(t *testing.T) {
			s := startStubborn(t)
			var decided, onRecord atomic.Int64
			l := newLink(t, mqtt.Options{Address: s.listen.Addr().String(), Sessions: &mqtt.Sessions{ClientID: "es", Shards: 1, FlushWaits: waits,
				Flush: func(shard int) error {
					if shard != 0 {
						t.Errorf("shard %d", shard)
					}
					onRecord.Store(decided.Load())
					return nil
				}}})
			attachKeeper(t, l, id("company", "car"), func(k *keeper, _ string, d link.Delivery) {
				n := decided.Add(1)
				if n%3 == 0 {
					k.port.Acknowledge(d.Ack)
					return
				}
				k.port.Publish(binary.BigEndian.AppendUint32(nil, uint32(n)), d.Ack)
			})
			runSuspendable(t, l)
			s.accept5(0x20, 3, 0, 0, 0)
			defer func() { s.conn.Close() }()
			for n := int64(1); n <= 200; n++ {
				s.write(wire.V5.AppendPublish(nil, "company/car/module_gateway", []byte("x"), 1, uint16(n), false, false)...)
				kind, body := s.next()
				if kind != wire.Puback || int64(binary.BigEndian.Uint16(body)) != n {
					t.Fatalf("%v instead of the acknowledgement of %d", kind, n)
				}
				if r := onRecord.Load(); r < n {
					t.Fatalf("acknowledged %d, on record are %d", n, r)
				}
				if n%3 == 0 {
					continue
				}
				if kind, body = s.next(); kind != wire.Publish {
					t.Fatalf("%v instead of the answer to %d", kind, n)
				}
				s.acknowledgePublish(body)
			}
		})
	}
}
