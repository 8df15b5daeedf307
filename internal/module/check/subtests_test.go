package check

import "testing"

// subtests checks the target as subtests, one per rule.
func subtests(t *testing.T, target Target) {
	t.Helper()
	Run(t.Context(), target, func(f Finding) {
		t.Run(f.Rule, func(t *testing.T) {
			t.Logf("took %v", f.Took)
			switch f.Outcome {
			case Fail:
				t.Errorf("%s (%s): %s", f.Text, f.Spec, f.Detail)
			case Skipped:
				t.Logf("not checked: %s", f.Detail)
			}
		})
	})
}
