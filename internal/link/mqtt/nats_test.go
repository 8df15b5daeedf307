//go:build nats

package mqtt_test

import (
	"testing"

	"external-server/internal/support/brokertest"
)

// NATS speaks only MQTT 3.1.1: its cars are served with clean sessions, and this is said
// once. `make nats` builds the server and runs this test.
func TestNATS(t *testing.T) {
	declined(t, brokertest.StartNATS(t, ""), "3.1.1", "MQTT 3.1.1")
}
