package pace

import "time"

const (
	paceWindow   = 10 * time.Millisecond  // over which messages and cars are counted
	longestPause = 400 * time.Microsecond // and so much later is a message answered at most
	// pauseShare: a pause is at most this part of the time between two messages of a car. A
	// car that waits for its answer before it reports again is slowed down by no more.
	pauseShare = 16
	// leastPaused and mostPaused are how many messages a pause brings. Fewer are not worth
	// it; a broker that has more in flight than it may would have to wait.
	leastPaused, mostPaused = 4, 8
	// Pauses that bring less than half of leastPaused are given up for a while: the broker
	// sends the next message only after the answer to the last one.
	shortestBan, longestBan = 100 * time.Millisecond, 5 * time.Second
)

// pacer tells a reader how long to pause.
type pacer struct {
	window   uint32 // number of this one
	began    time.Time
	messages int // in this window
	cars     int // that have sent them
	pauses   int
	pause    time.Duration // in this window
	ban      time.Duration // the last one
	banned   time.Time     // until then
}

// heard counts a message of a car. window is where the car remembers in which one it was
// heard last.
func (p *pacer) heard(window *uint32) {
	p.messages++
	if *window != p.window {
		*window = p.window
		p.cars++
	}
}

// next returns how long to pause now that what was received is handled; 0: not at all.
func (p *pacer) next(now time.Time) time.Duration {
	if p.messages == 0 && p.pause == 0 {
		return 0
	}
	if took := now.Sub(p.began); took >= paceWindow {
		p.judge(now)
		p.pause = p.worth(now, took)
		p.began, p.messages, p.cars, p.pauses = now, 0, 0, 0
		p.window++
	}
	if p.pause > 0 {
		p.pauses++
	}
	return p.pause
}

// judge gives pauses up that have brought too little.
func (p *pacer) judge(now time.Time) {
	switch {
	case p.pauses == 0:
	case p.messages < p.pauses*leastPaused/2:
		p.ban = min(max(2*p.ban, shortestBan), longestBan)
		p.banned = now.Add(p.ban)
	case now.Sub(p.banned) > p.ban:
		p.ban = 0
	}
}

// worth returns the pause for the next window, by what has come in this one.
func (p *pacer) worth(now time.Time, took time.Duration) time.Duration {
	if p.messages == 0 || now.Before(p.banned) {
		return 0
	}
	each := took / time.Duration(p.messages)
	pause := min(longestPause, mostPaused*each, each*time.Duration(p.cars)/pauseShare)
	if pause < leastPaused*each {
		return 0
	}
	return pause
}

// refuse takes the pause of this window back.
func (p *pacer) refuse() { p.pause, p.pauses = 0, 0 }
