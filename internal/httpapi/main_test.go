package httpapi

import (
	"testing"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
)

var car1 = fleet.CarID{Company: "company", Car: "car_1"}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
