package fleet

import (
	"regexp"
	"testing"
)

// FuzzValidName: the rule is that of VOC-1, for every string.
func FuzzValidName(f *testing.F) {
	rule := regexp.MustCompile(`\A[a-z0-9_]+\z`)
	for _, s := range []string{"", "car_1", "Car", "a/b", "a\n", "ä", "-", "a b", "\xff", "{", "`", "/", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := ValidName(s), rule.MatchString(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	})
}
