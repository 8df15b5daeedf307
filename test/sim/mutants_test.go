package sim

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
	"sync"
	"testing"
	"time"
)

var (
	mutants     = flag.Int("mutants", 2, "check this many deliberate bugs, drawn at random; -1: all of them")
	mutantNames = flag.String("mutant", "", "check the deliberate bugs whose name contains this")
	mutantSeeds = flag.Int("mutant-seeds", 6000, "histories that must catch a deliberate bug")
)

// mutant is one deliberate bug in the core, or in how a server uses it: a text of one file replaced by
// another. testdata/mutants has one file per mutant.
type mutant struct {
	name, what, file, old, new string
}

// path is where its file is: one of the core, or with "sim/" of the model of the servers around it.
func (m mutant) path() string {
	if own, ok := strings.CutPrefix(m.file, "sim/"); ok {
		return own
	}
	return filepath.Join("..", "..", "internal", "session", m.file)
}

func readMutant(path string) (mutant, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return mutant{}, err
	}
	m := mutant{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	var body string
	m.what, body, _ = strings.Cut(string(raw), "\nfile: ")
	m.file, body, _ = strings.Cut(body, "\n--- old\n")
	m.old, body, _ = strings.Cut(body, "\n--- new\n")
	var ok bool
	if m.new, _, ok = strings.Cut(body, "\n--- end\n"); !ok {
		return m, fmt.Errorf("%s: want a description, \"file:\", \"--- old\", \"--- new\" and \"--- end\"", path)
	}
	return m, nil
}

// TestMutants builds the simulation with one deliberate bug in the core at a
// time and expects a history to fail: invariants that catch nothing are worth
// nothing.
func TestMutants(t *testing.T) {
	files, err := filepath.Glob("testdata/mutants/*.txt")
	if err != nil || len(files) < 25 {
		t.Fatalf("found %d mutants, want at least 25: %v", len(files), err)
	}
	var all []mutant
	for _, f := range files {
		m, err := readMutant(f)
		if err != nil {
			t.Fatal(err)
		}
		src, err := os.ReadFile(m.path())
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(src, []byte(m.old)); n != 1 {
			t.Errorf("%s: its old text is found %d times in %s, want once; adapt it to the code", f, n, m.path())
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
	gate := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for _, m := range all {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			if err := m.caught(t.TempDir()); err != nil {
				t.Errorf("%s (%s): %v", m.name, m.what, err)
				return
			}
			t.Logf("caught: %s (%s)", m.name, m.what)
		})
	}
	wg.Wait()
}

// caught builds and runs the simulation with the bug; nil means that a history
// failed.
func (m mutant) caught(dir string) error {
	source, err := filepath.Abs(m.path())
	if err != nil {
		return err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	changed := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(changed, bytes.Replace(text, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	if err != nil {
		return err
	}
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlayFile, "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("does not build: %w\n%s", err, out)
	}
	args := []string{"-test.run", "^TestHistories$", "-seeds", fmt.Sprint(*mutantSeeds), "-shrink=false"}
	if strings.HasPrefix(m.name, "resume_") {
		args = []string{"-test.run", "^TestDurableHistories$", "-durable-seeds", fmt.Sprint(*mutantSeeds)}
	}
	if strings.HasPrefix(m.name, "cluster_") {
		args = []string{"-test.run", "^TestClusterHistories$", "-cluster-seeds", fmt.Sprint(*mutantSeeds / 2)}
	}
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("survives %d histories", *mutantSeeds)
	case !bytes.Contains(out, []byte("play it again")):
		return fmt.Errorf("the simulation broke in another way: %w\n%s", err, out)
	}
	return nil
}
