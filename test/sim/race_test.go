//go:build race

package sim

// detected: the race detector makes each history many times slower, and one history is
// played by one goroutine. What could be a race is a variable that histories share, and a
// few show that.
const detected = true
