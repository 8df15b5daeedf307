package sim

import "slices"

// Shrink removes actions, commands and devices from a failing scenario as long
// as it still fails, and returns the smallest one it found with its result. It
// plays at most budget histories.
func Shrink(failing Result, budget int) Result {
	best := failing
	try := func(sc *Scenario) bool {
		if budget <= 0 {
			return false
		}
		budget--
		if r := Play(sc); r.Err != nil {
			best = r
			return true
		}
		return false
	}
	for shrunk := true; shrunk && budget > 0; {
		shrunk = false
		// Halves first, then quarters, down to single actions.
		for size := (len(best.Scenario.Actions) + 1) / 2; size > 0; size /= 2 {
			for from := 0; from < len(best.Scenario.Actions); {
				sc := *best.Scenario
				to := min(from+size, len(sc.Actions))
				sc.Actions = slices.Delete(slices.Clone(sc.Actions), from, to)
				if try(&sc) {
					shrunk = true
				} else {
					from = to
				}
			}
		}
		if best.Scenario.CommandEvery != 0 {
			sc := *best.Scenario
			sc.CommandEvery = 0
			shrunk = try(&sc) || shrunk
		}
		for i := len(best.Scenario.Devices) - 1; i >= 0 && len(best.Scenario.Devices) > 1; i-- {
			if sc := best.Scenario.without(i); sc != nil {
				shrunk = try(sc) || shrunk
			}
		}
	}
	return best
}

// without returns the scenario without a device, or nil if an action needs it.
func (s *Scenario) without(device int) *Scenario {
	sc := *s
	sc.Actions = slices.Clone(s.Actions)
	for i := range sc.Actions {
		a := &sc.Actions[i]
		if a.Kind != Join && a.Kind != Leave {
			continue
		}
		if a.N == device {
			return nil
		}
		if a.N > device {
			a.N--
		}
	}
	sc.Devices = slices.Delete(slices.Clone(s.Devices), device, device+1)
	sc.Present = slices.Delete(slices.Clone(s.Present), device, device+1)
	sc.Every = slices.Delete(slices.Clone(s.Every), device, device+1)
	return &sc
}
