package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	mutants     = flag.Int("mutants", 1, "check this many deliberate bugs, drawn at random; -1: all of them")
	mutantNames = flag.String("mutant", "", "check the deliberate bugs whose name contains this")
	mutantSeeds = flag.Int("mutant-seeds", 20000, "histories that must catch a deliberate bug")
)

// mutant is one deliberate bug in the planner: a text of one file replaced by another.
// testdata/mutants has one file for each.
type mutant struct{ name, what, file, old, new string }

func readMutant(path string) (mutant, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return mutant{}, err
	}
	m := mutant{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	rest := string(raw)
	ok := true
	cut := func(into *string, until string) {
		var found bool
		*into, rest, found = strings.Cut(rest, until)
		ok = ok && found
	}
	cut(&m.what, "\nfile: ")
	cut(&m.file, "\n--- old\n")
	cut(&m.old, "\n--- new\n")
	cut(&m.new, "\n--- end\n")
	if !ok {
		return m, fmt.Errorf("%s: expected a description, \"file:\", \"--- old\", \"--- new\" and \"--- end\"", path)
	}
	return m, nil
}

// TestMutants builds the simulation with one deliberate bug in the planner at a time and
// expects a history to fail: rules that catch nothing are worth nothing.
func TestMutants(t *testing.T) {
	files, err := filepath.Glob("testdata/mutants/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d mutants: %v", len(files), err)
	}
	var all []mutant
	for _, f := range files {
		m, err := readMutant(f)
		if err != nil {
			t.Fatal(err)
		}
		src, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(src, []byte(m.old)); n != 1 {
			t.Errorf("%s: its old text is found %d times in %s, expected once; adapt it to the code", f, n, m.file)
		}
		if strings.Contains(m.name, *mutantNames) {
			all = append(all, m)
		}
	}
	if t.Failed() || testing.Short() {
		return
	}
	if *mutants >= 0 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:min(*mutants, len(all))]
	}
	for _, m := range all {
		if err := m.caught(t.Context(), t.TempDir()); err != nil {
			t.Errorf("%s (%s): %v", m.name, m.what, err)
			continue
		}
		t.Logf("caught: %s (%s)", m.name, m.what)
	}
}

// caught builds and runs the simulation with the bug; nil means that a history failed.
func (m mutant) caught(ctx context.Context, dir string) error {
	source, err := filepath.Abs(m.file)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	changed, overlay, binary := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "cluster.test")
	if err := os.WriteFile(changed, bytes.Replace(text, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return err
	}
	raw, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, raw, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("does not build: %w\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, binary, "-test.run", "^TestHistories$", "-seeds", fmt.Sprint(*mutantSeeds)).CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("survives %d histories", *mutantSeeds)
	case !bytes.Contains(out, []byte("replay: ")):
		return fmt.Errorf("the simulation broke in another way: %w\n%s", err, out)
	}
	return nil
}
