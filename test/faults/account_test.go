package faults

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/testwait"
)

// row is the result of one scenario.
type row struct {
	Fault      string
	Cars       int
	Sent       int // different statuses that left a car at least once
	Answered   int
	Delivered  int // different statuses that reached the module
	Lost       int // answered and not delivered
	Again      int // deliveries beyond the first: a status sent or handed over again
	OthersLost int // sessions lost by cars that the fault does not concern
	Recovery   time.Duration
	Note       string

	others, recovered bool
}

// account compares what was sent, answered and delivered. lossAllowed names the
// documented reason for which an answered status may be lost; "" allows none.
func (r *rig) account(lossAllowed string) {
	r.Helper()
	r.count(r.recorded(), lossAllowed)
}

// awaitDelivery gives modules that were away the time to take what waits for them; a
// stop would end that after limits.stop_timeout_ms.
func (r *rig) awaitDelivery(complete func() bool) {
	r.Helper()
	begin := time.Now()
	for !complete() && time.Since(begin) < testwait.Patience {
		pause(20 * time.Millisecond)
	}
	if took := time.Since(begin); took > time.Second {
		r.row.Note += prefixed(strings.Repeat("; ", min(1, len(r.row.Note))), fmt.Sprintf("modules had everything %v later", took.Round(100*time.Millisecond)))
	}
}

// missing counts the answered statuses that are not among the delivered ones.
func (r *rig) missing(delivered map[string]int) int {
	n := 0
	for _, c := range r.crew.cars {
		c.mu.Lock()
		for status := range c.answered {
			if delivered[fmt.Sprintf("%s %d", c.name, status)] == 0 {
				n++
			}
		}
		c.mu.Unlock()
	}
	return n
}

// recorded reads what the modules have written down.
func (r *rig) recorded() map[string]int {
	r.Helper()
	delivered := make(map[string]int)
	for life := range r.life + 1 {
		last, before := make(map[string]int), maps.Clone(delivered)
		for number := range r.libraries {
			r.recordedIn(life, number, delivered, last)
		}
		for status, times := range delivered {
			if r.life > 0 && times > before[status]+1 {
				r.Errorf("status %q was delivered %d times in one life of the server", status, times-before[status])
			}
		}
	}
	return delivered
}

// recordedIn reads what a module has written down in one life of the server.
func (r *rig) recordedIn(life int, number int32, delivered, last map[string]int) {
	r.Helper()
	text, err := os.ReadFile(r.recordOf(number, life))
	if err != nil && !os.IsNotExist(err) {
		r.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		n, ok := sequence(line)
		name, _, _ := strings.Cut(strings.Trim(string(line), `"`), " ")
		if !ok {
			r.Errorf("module %d got a status that no car has sent: %.80q", number, line)
			continue
		}
		r.arrived(delivered, last, name, n)
	}
}

// arrived notes a status that reached a module. It may come again, after a restart
// of the module or in the next session; none may come after a younger one.
func (r *rig) arrived(delivered, last map[string]int, name string, n int) {
	r.Helper()
	if before, ok := last[name]; ok && n < before {
		r.Errorf("status %d of car %s was delivered after status %d", n, name, before)
	}
	last[name] = n
	delivered[fmt.Sprintf("%s %d", name, n)]++
}

func (r *rig) count(delivered map[string]int, lossAllowed string) {
	r.Helper()
	r.row.Cars = len(r.crew.cars)
	for _, times := range delivered {
		r.row.Delivered++
		r.row.Again += times - 1
	}
	for _, c := range r.crew.cars {
		c.mu.Lock()
		r.row.Sent += len(c.sent)
		r.row.Answered += len(c.answered)
		for n := range c.answered {
			if delivered[fmt.Sprintf("%s %d", c.name, n)] == 0 {
				r.row.Lost++
				if lossAllowed == "" {
					r.Errorf("status %d of car %s was answered and not delivered", n, c.name)
				}
			}
		}
		for reason, n := range c.wrong {
			if !fromSilence(reason) {
				r.Errorf("car %s saw the server break the protocol %d times: %v", c.name, n, reason)
			}
		}
		c.mu.Unlock()
	}
	if r.row.Lost > 0 {
		r.row.Note = lossAllowed
	}
	if r.row.Answered == 0 || r.row.Delivered == 0 {
		r.Error("nothing was answered or delivered: the scenario proves nothing")
	}
}

// fromSilence tells whether a violation is the absence of a message, or the answer
// to an attempt that the gateway has given up meanwhile: both are the consequence of
// a fault between server and car.
func fromSilence(reason gateway.Reason) bool {
	switch reason {
	case gateway.ReasonNoConnectResponse, gateway.ReasonNoStatusResponse, gateway.ReasonNoCommand, gateway.ReasonUnanswered,
		gateway.ReasonConnectSession:
		return true
	}
	return false
}

// String is the line of the terminal.
func (w *row) String() string {
	return fmt.Sprintf("%s: %d cars, %d sent, %d answered, %d delivered (%d again), %d lost after the answer, sessions lost among others %s, recovery %s%s",
		w.Fault, w.Cars, w.Sent, w.Answered, w.Delivered, w.Again, w.Lost, w.otherText(), w.recoveryText(), prefixed("; ", w.Note))
}

func (w *row) otherText() string {
	if !w.others {
		return "–"
	}
	return fmt.Sprint(w.OthersLost)
}

func (w *row) recoveryText() string {
	if !w.recovered {
		return "–"
	}
	return w.Recovery.Round(100 * time.Millisecond).String()
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// Markers of the table in docs/reliability.md.
const (
	tableBegin = "<!-- faults: generated by make faults-table -->"
	tableEnd   = "<!-- end of faults -->"
)

// writeTable puts the rows into docs/reliability.md; those of faults that were not run stay.
func writeTable(root string, rows []*row) error {
	path := filepath.Join(root, "docs/reliability.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: the markers %q and %q are missing", path, tableBegin, tableEnd)
	}
	return os.WriteFile(path, []byte(before+tableBegin+"\n"+updatedTable(table, rows)+tableEnd+after), 0o600)
}

// updatedTable returns the table with the rows in the order of the scenarios.
func updatedTable(table string, rows []*row) string {
	lines := make(map[string]string) // by fault
	for line := range strings.Lines(table) {
		if fault, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok {
			lines[fault] = line
		}
	}
	for _, w := range rows {
		lines[w.Fault] = fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %s | %s | %s |\n",
			w.Fault, w.Cars, w.Sent, w.Answered, w.Delivered, w.Lost, w.otherText(), w.recoveryText(), w.Note)
	}
	var b strings.Builder
	b.WriteString("\n| Fault | Cars | Sent | Answered | Delivered | Lost after the answer | Sessions lost, other cars | Recovery | |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range scenarios() {
		b.WriteString(lines[s.fault])
	}
	b.WriteString("\n")
	return b.String()
}

// A run of some faults changes their rows, and adds new ones in their places.
func TestUpdatedTable(t *testing.T) {
	all := scenarios()
	table := updatedTable("", []*row{{Fault: all[0].fault, Cars: 1}, {Fault: all[2].fault, Cars: 3}, {Fault: "a fault that is gone"}})
	table = updatedTable(table, []*row{{Fault: all[1].fault, Cars: 2}, {Fault: all[2].fault, Cars: 4}})
	var got []string
	for line := range strings.Lines(table) {
		if f := strings.Split(line, " | "); len(f) > 2 && f[1] != "Cars" {
			got = append(got, f[0]+f[1])
		}
	}
	want := []string{"| " + all[0].fault + "1", "| " + all[1].fault + "2", "| " + all[2].fault + "4"}
	if !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
}
