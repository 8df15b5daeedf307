package car

import (
	"testing"

	"external-server/internal/link"
)

// Whatever arrives on the car's topic, the car lives on.
func FuzzMessage(f *testing.F) {
	c, next := runningCar(f, Options{Observer: &counting{}})
	f.Add(next(), false)
	f.Add([]byte{}, true)
	f.Add([]byte("\x0a\x0c\x0a\x08session2\x22\x00"), false)
	f.Add([]byte("\x1a\x0c\x0a\x08abcdefgh\x18\x01"), true)
	f.Fuzz(func(t *testing.T, payload []byte, duplicate bool) {
		c.Message(payload, link.Delivery{Duplicate: duplicate})
		c.Sent()
		if o := c.occupant.Load(); o.hasFailed() {
			t.Fatalf("%v\n%s", o.defect, o.defect.Stack)
		}
		if s := c.Snapshot(); s.Lost != 0 {
			t.Errorf("lost statuses: %+v", s)
		}
	})
}
