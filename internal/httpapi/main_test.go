package httpapi

import (
	"testing"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
	"external-server/internal/support/testleak"
)

var car1 = fleet.CarID{Company: "company", Car: "car_1"}

func TestMain(m *testing.M) { goleak.VerifyTestMain(testleak.Settled(m)) }
