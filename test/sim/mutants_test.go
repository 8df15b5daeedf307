package sim

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/support/mutants"
)

var (
	mutantsDrawn = flag.Int("mutants", few(2, 0), "check this many deliberate bugs, drawn at random; -1: all of them")
	mutantNames  = flag.String("mutant", "", "check the deliberate bugs whose name contains this")
	mutantSeeds  = flag.Int("mutant-seeds", 6000, "histories that must catch a deliberate bug; 10/3 of it where a server goes on from its journal, or several hand a car over")
)

// TestMutants: histories find deliberate bugs in the core and in how a server uses it.
func TestMutants(t *testing.T) {
	of := func(name, kind string) bool { return strings.HasPrefix(name, kind) }
	rare := func(name string) bool { return of(name, "resume_") || of(name, "cluster_") }
	mutants.Suite{Least: 25, Draw: *mutantsDrawn, Names: *mutantNames, Found: "play it again", Path: mutantPath, Rare: rare, Args: func(name, seed string) []string {
		first, usual, many := "1", fmt.Sprint(*mutantSeeds), fmt.Sprint(*mutantSeeds*10/3)
		if seed != "" {
			first, usual, many = seed, "1", "1"
		}
		switch {
		case of(name, "resume_"):
			return []string{"-test.run", "^TestDurableHistories$", "-test.timeout", "0", "-durable-seeds", many, "-seed", first}
		case of(name, "cluster_"):
			return []string{"-test.run", "^TestClusterHistories$", "-test.timeout", "0", "-cluster-seeds", many, "-seed", first}
		}
		return []string{"-test.run", "^TestHistories$", "-seeds", usual, "-seed", first, "-shrink=false"}
	}}.Check(t)
}

// mutantPath is where a file is: one of the core, or with "sim/" of the model of the servers around it.
func mutantPath(file string) string {
	if own, ok := strings.CutPrefix(file, "sim/"); ok {
		return own
	}
	return filepath.Join("..", "..", "internal", "session", file)
}
