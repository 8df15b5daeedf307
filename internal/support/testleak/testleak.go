// Package testleak looks for goroutines that tests have left. It imports nothing of the project
// and is imported by tests only.
package testleak

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// settleTime is how long goroutines that are ending may take for it when all tests have passed.
const settleTime = time.Minute

// Settled is m for goleak.VerifyTestMain, which gives goroutines that are ending less than
// half a second, too little on a busy machine: after the tests it waits as Left does.
func Settled(m *testing.M, none ...goleak.Option) goleak.TestingM { return settled{m, none} }

type settled struct {
	m    *testing.M
	none []goleak.Option
}

// Run implements goleak.TestingM.
func (s settled) Run() int {
	code := s.m.Run()
	if code == 0 {
		_ = Left(s.none...) // goleak says it
	}
	return code
}

// Left waits until no goroutine is left, for a minute, and returns an error that shows those
// that are. The options are those of goleak.Find that say which count as none.
func Left(none ...goleak.Option) (err error) {
	for deadline := time.Now().Add(settleTime); ; {
		if err = goleak.Find(none...); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
