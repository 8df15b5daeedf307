// Package liveness judges whether the broker is still at the other end of a connection: Pinger by
// the keepalive, Pings by the answers to questions, Witness by the answers over other
// connections.
//
// Each value belongs to one connection and to one broker's answers; a new connection begins with new ones.
// The connection's lock guards them; time comes in with each call. It imports nothing of the project.
package liveness

import (
	"fmt"
	"time"
)

// Signs are what a connection has had from its broker.
type Signs struct {
	Answered int64  // when it has answered something, last: proof that it hears, too
	Reads    uint64 // from the socket: proof that it lives
}

// Pinger notices a broker that is not there any more (CONN-6).
type Pinger struct {
	heartbeat, keepAlive time.Duration

	period  time.Duration
	last    time.Time // the last look
	sent    time.Time // last question, or begin of the connection
	signs   uint64    // of life, at that time
	waiting bool
}

// NewPinger returns the pinger of a connection that begins now. heartbeat is how often the
// broker is asked for an answer while it gives none to anything else; zero: whatever comes counts.
func NewPinger(heartbeat, keepAlive time.Duration, now time.Time) *Pinger {
	period := min(time.Second, keepAlive/4)
	if heartbeat > 0 {
		period = min(period, heartbeat/2)
	}
	return &Pinger{heartbeat: heartbeat, keepAlive: keepAlive, period: period, last: now, sent: now}
}

// Period is how often Look is to be called.
func (p *Pinger) Period() time.Duration { return p.period }

// UntilNext returns how long it is until a multiple of the period, at most one period. Connections that look then look
// together: 32 of them wake an idle process once, not 32 times.
func UntilNext(now time.Time, period time.Duration) time.Duration {
	return now.Truncate(period).Add(period).Sub(now.Round(0))
}

// limits returns how long the broker may be quiet before it is asked, and how long it may take to
// answer. Without heartbeat: two thirds of the keepalive until the question, one third for the answer.
func (p *Pinger) limits() (quiet, patience time.Duration) {
	if p.heartbeat > 0 {
		return min(p.heartbeat, p.keepAlive/2), p.keepAlive
	}
	return p.keepAlive * 2 / 3, p.keepAlive / 3
}

// Look tells whether to ask the broker now, and returns an error when it gives no sign of life.
func (p *Pinger) Look(now time.Time, has Signs) (ask bool, err error) {
	quiet, patience := p.limits()
	signs := has.Reads
	if p.heartbeat > 0 {
		signs = uint64(has.Answered)
	}
	if halt := now.Sub(p.last) - p.period; halt > p.period {
		p.sent = p.sent.Add(halt) // while this process did not run it could not hear the answer
	}
	p.last = now
	if signs != p.signs {
		p.signs, p.waiting = signs, false
		if p.heartbeat > 0 { // nor need it be asked
			p.sent = now
		}
	}
	switch asked := now.Sub(p.sent); {
	case p.waiting && asked >= patience:
		return false, fmt.Errorf("no answer to a ping within %v", patience)
	case !p.waiting && asked >= quiet:
		p.sent, p.signs, p.waiting = now, signs, true
		return true, nil
	}
	return false, nil
}

// Pings counts the questions and answers of a connection. They show that the broker takes it for the one of its client
// identifier. That packets come does not: they may have waited in the socket while this process stood still and
// another server took the connection over.
type Pings struct {
	asked, answered uint64
	question        uint64    // the one that is to be answered, 0: none
	at              time.Time // when it was asked
	proved          time.Time // see Proved
}

// Ask counts a PINGREQ that leaves.
func (p *Pings) Ask() { p.asked++ }

// Answer counts a PINGRESP.
func (p *Pings) Answer() {
	if p.answered++; p.question != 0 && p.answered >= p.question {
		p.question, p.proved = 0, p.at
	}
}

// Unanswered tells whether an answer is still to come.
func (p *Pings) Unanswered() bool { return p.asked > p.answered }

// Prove makes the next question the one that proves. False: there is one already.
func (p *Pings) Prove(now time.Time) bool {
	if p.question != 0 {
		return false
	}
	p.question, p.at = p.asked+1, now
	return true
}

// Proved returns when the last question of Prove that was answered had been asked; zero: none was
// answered.
func (p *Pings) Proved() time.Time { return p.proved }

// Witness judges one connection by what the broker answers over others. A network may lose one
// connection among many without a word, and the keepalive notices that late. The time that counts is
// not that of a clock: it passes while the broker answers others, and stands still while it answers no
// connection at all, or while this process does not run.
type Witness struct {
	signs  Signs
	others time.Time     // newest answer over another connection
	silent time.Duration // for how long others have been answered since the last sign
}

// Look takes in what is known now and returns for how long the broker was silent. fair says that the silence is
// the broker's: it was asked, and this process waits for its answer. most bounds what counts of
// the time between two answers to others: a broker that stood still begins with one of its connections.
func (w *Witness) Look(now Signs, others time.Time, fair bool, most time.Duration) time.Duration {
	passed := time.Duration(0)
	if !w.others.IsZero() {
		passed = max(0, min(others.Sub(w.others), most))
	}
	if others.After(w.others) {
		w.others = others
	}
	switch {
	case now != w.signs:
		w.signs, w.silent = now, 0
	case fair:
		w.silent += passed
	}
	return w.silent
}
