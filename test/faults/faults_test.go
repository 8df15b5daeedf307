package faults

import (
	"flag"
	"regexp"
	"testing"

	"external-server/internal/support/servertest"
)

var (
	faultsFlag = flag.String("faults", "", "run all `faults` that match this expression, with large fleets and the time limits of the real gateway; empty: a representative part with small ones")
	updateFlag = flag.Bool("update", false, "write the rows into the table of docs/reliability.md")
)

// scenario is one fault.
type scenario struct {
	name  string
	fault string // for the table
	short bool   // part of make test
	run   func(*rig)
}

func scenarios() []scenario {
	var all []scenario
	all = append(all, brokerFaults()...)
	all = append(all, networkFaults()...)
	all = append(all, serverFaults()...)
	all = append(all, resumeFaults()...)
	all = append(all, clusterFaults()...)
	all = append(all, moduleFaults()...)
	all = append(all, apiFaults()...)
	all = append(all, machineFaults()...)
	all = append(all, clockFaults()...)
	return append(all, strangerFaults()...)
}

// Every fault of the failure table, on the real binary: what was answered is
// delivered, cars that the fault does not concern notice nothing, and those it
// concerns are served again.
func TestFaults(t *testing.T) {
	full := *faultsFlag != ""
	match, err := regexp.Compile(*faultsFlag)
	if err != nil {
		t.Fatalf("-faults: %v", err)
	}
	var rows []*row
	for _, s := range scenarios() {
		if full && !match.MatchString(s.name) || !full && !s.short {
			continue
		}
		w := &row{Fault: s.fault}
		rows = append(rows, w)
		t.Run(s.name, func(t *testing.T) {
			if !full {
				t.Parallel()
			}
			s.run(&rig{TB: t, row: w, full: full, dir: t.TempDir(), libraries: make(map[int32]string)})
			t.Log(w)
		})
	}
	if *updateFlag {
		if t.Failed() {
			t.Fatal("the table is not written, because a scenario failed")
		}
		if err := writeTable(servertest.Root(), rows); err != nil {
			t.Fatal(err)
		}
	}
}
