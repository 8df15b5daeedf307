package mqtt_test

import (
	"fmt"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt"
)

// The largest of 32 connections has hardly more cars than the others: what the broker has to queue for it
// is what docs/operations.md says.
func TestCarsPerConnection(t *testing.T) {
	for cars, most := range map[int]int{100: 5, 1000: 35, 10_000: 326} {
		for _, company := range []string{"acme", "bringauto", "company", "demo", "fleet", "my_company"} {
			var shards [32]int
			for n := range cars {
				shards[mqtt.Shard(fleet.CarID{Company: company, Car: fmt.Sprintf("car%04d", n+1)}, len(shards))]++
			}
			for n, size := range shards {
				if size > most {
					t.Errorf("%d of %d cars of %s are on connection %d, expected at most %d", size, cars, company, n, most)
				}
			}
		}
	}
}
