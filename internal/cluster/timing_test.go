package cluster

import (
	"testing"
	"time"
)

// The times without broker follow the lease as long as that is shorter than what gateways wait.
func TestTimingFor(t *testing.T) {
	for lease, want := range map[time.Duration][2]time.Duration{
		3 * time.Second:  {time.Second, 2 * time.Second},
		6 * time.Second:  {2 * time.Second, 4 * time.Second},
		60 * time.Second: {5 * time.Second, 10 * time.Second},
	} {
		if got := TimingFor(lease); got.Unwell != want[0] || got.GiveAway != want[1] || got.Balance != DefaultTiming().Balance {
			t.Errorf("lease %v: %+v", lease, got)
		}
	}
	if TimingFor(3*time.Second) != DefaultTiming() {
		t.Error("the default lease has other times than the default")
	}
}
