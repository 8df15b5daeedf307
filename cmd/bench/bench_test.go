package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/lab/bench"
)

// A wrong call has exit code 2, what cannot be done 1.
func TestExitCodes(t *testing.T) {
	notReport := filepath.Join(t.TempDir(), "table.json")
	if err := os.WriteFile(notReport, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for call, want := range map[string]int{
		"--help": exitOK, "--rows (": exitUsage, "--nothing": exitUsage, "banana": exitUsage, "plot": exitUsage, "growth x": exitUsage,
		"--broker nowhere": exitError, "--runs 0": exitError, "plot nowhere.json": exitError, "plot " + notReport: exitError, "child {}": exitError,
	} {
		if got := run(strings.Fields(call)); got != want {
			t.Errorf("bench %s: exit code %d, expected %d", call, got, want)
		}
	}
}

// A report that was written is drawn.
func TestPlot(t *testing.T) {
	text, err := json.Marshal(bench.Report{Growth: []bench.Point{{Cars: 1, Role: bench.RoleServer, PerSecond: 5000}, {Cars: 10, Role: bench.RoleServer, PerSecond: 9000}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "growth.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"plot", path})
	if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), "<svg") {
		t.Errorf("%v: %.100s", err, out.String())
	}
}
