package mqtt

import (
	"strings"
	"testing"

	"external-server/internal/fleet"
)

// Whatever the topic, it names a car only if the topic of that car is the very same
// one (CONN-2): no message reaches another car's room.
func FuzzTopic(f *testing.F) {
	for _, s := range []string{"acme/car/module_gateway", "acme/car/external_server", "/acme/car/module_gateway", "acme//module_gateway", "//module_gateway",
		"acme/car/x/module_gateway", "acme/car/module_gateway/module_gateway", "module_gateway", "", "acme/../car/module_gateway", "acme/c\x00r/module_gateway", "acme/+/module_gateway"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		company, name, ok := splitTopic([]byte(topic))
		if !ok || !validName(string(name)) {
			return
		}
		id := fleet.CarID{Company: string(company), Car: string(name)}
		if id.String()+"/module_gateway" != topic || strings.Contains(id.Car, "/") {
			t.Errorf("topic %q is taken for one of car %v", topic, id)
		}
	})
}
