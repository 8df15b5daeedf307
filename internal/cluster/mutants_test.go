package cluster

import (
	"flag"
	"fmt"
	"testing"

	"external-server/internal/support/mutants"
)

var (
	mutantsDrawn = flag.Int("mutants", 1, "check this many deliberate bugs, drawn at random; -1: all of them")
	mutantNames  = flag.String("mutant", "", "check the deliberate bugs whose name contains this")
	mutantSeeds  = flag.Int("mutant-seeds", 20000, "histories that must catch a deliberate bug")
)

// TestMutants: histories find deliberate bugs in the planner.
func TestMutants(t *testing.T) {
	mutants.Suite{Least: 20, Draw: *mutantsDrawn, Names: *mutantNames, Found: "replay: ", Args: func(string, string) []string {
		return []string{"-test.run", "^TestHistories$", "-seeds", fmt.Sprint(*mutantSeeds)}
	}}.Check(t)
}
