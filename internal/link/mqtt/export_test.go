package mqtt

import "time"

// PaceBy replaces the clock and the sleep of readers that pause; before Run.
func (l *Link) PaceBy(now func() time.Time, sleep func(time.Duration)) {
	l.pacing.Now, l.pacing.Sleep = now, sleep
}
