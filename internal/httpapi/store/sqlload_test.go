package store

import (
	"context"
	"fmt"
	"testing"

	"external-server/internal/httpapi"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testwait"
)

// TestOneCarWithManyDevicesLoads: the time to load is that of looking at each message of
// the last minute once, not once for each device.
func TestOneCarWithManyDevicesLoads(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		defer func() { _ = s.Close() }()
		const devices, rounds = 950, 50
		var first []httpapi.Message
		for n := range devices {
			first = append(first, apitest.Status(3, int64(n), "r", "{}"))
		}
		apply(t, s, 1001, statusPost(apitest.Car1, 1000, first...))
		// As many statuses as come within a minute.
		if _, err := s.(*sqlStore).writer.ExecContext(t.Context(), fmt.Sprintf(`WITH RECURSIVE rounds (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM rounds WHERE n < %d)
			INSERT INTO fleet_messages (car_id, kind, at, stored_at, position, message_type, module, type, role, name, encoding, data)
			SELECT car_id, 0, 1000 * n, 1000 * n + 1, type, 'STATUS', module, type, role, name, 'JSON', '{}' FROM rounds CROSS JOIN fleet_devices`, rounds)); err != nil {
			t.Fatal(err)
		}
		// Once for each device would be 950 times as much: far more than this, on any machine.
		ctx, cancel := context.WithTimeout(t.Context(), 4*testwait.Patience)
		defer cancel()
		state, err := s.Load(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(state.Devices) != devices || len(state.Stale) != 0 {
			t.Fatalf("%d devices, %d stale", len(state.Devices), len(state.Stale))
		}
		for _, d := range state.Devices {
			if d.StatusAt != rounds*1000 || d.StoredAt != rounds*1000+1 {
				t.Fatalf("%+v, expected the newest status at %d", d, rounds*1000)
			}
		}
	})
}
