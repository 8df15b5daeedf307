// Package mutants puts deliberate bugs into a program, one at a time, and expects its
// simulation to find each: rules that catch nothing are worth nothing.
//
// A bug is a text of one file that is replaced by another. testdata/mutants of the package
// under test has one file for each: a description, then "seed: N" if one history is known that finds it, "file: NAME",
// "--- old", the text, "--- new", the other text and "--- end". Nothing but tests may import this package.
package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Suite is the deliberate bugs of one package and how they are looked for.
type Suite struct {
	// Least is how many bugs there must be.
	Least int
	// Draw is how many are tried, drawn at random; -1: all.
	Draw int
	// Names restricts them to those whose name contains this.
	Names string
	// Rare tells whether a bug of that name may need so many histories that it is tried only when
	// all are; nil: none. One whose seed is known is not rare.
	Rare func(name string) bool
	// Path returns where a file is that a bug names; nil: in the package's folder.
	Path func(file string) string
	// Args returns the arguments of the test program that must fail, for the bug of that name. seed is that of
	// the history that finds it, "" if none is known.
	Args func(name, seed string) []string
	// Found is what the program writes when the simulation has found something; a failure
	// without it is none of the simulation.
	Found string
}

// mutant is one deliberate bug.
type mutant struct{ name, what, seed, file, old, new string }

func read(path string) (mutant, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return mutant{}, err
	}
	m := mutant{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	rest, ok := string(raw), true
	cut := func(into *string, until string) {
		var found bool
		*into, rest, found = strings.Cut(rest, until)
		ok = ok && found
	}
	cut(&m.what, "\nfile: ")
	cut(&m.file, "\n--- old\n")
	cut(&m.old, "\n--- new\n")
	cut(&m.new, "\n--- end\n")
	m.what, m.seed, _ = strings.Cut(m.what, "\nseed: ")
	if !ok {
		return m, fmt.Errorf("%s: expected a description, \"file:\", \"--- old\", \"--- new\" and \"--- end\"", path)
	}
	return m, nil
}

// Check fails the test for each bug whose old text is not found once in its file, and, unless
// tests are to be short, for each bug that was tried and not found by the simulation.
func (s Suite) Check(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("testdata/mutants/*.txt")
	if err != nil || len(files) < s.Least {
		t.Fatalf("found %d deliberate bugs, expected at least %d: %v", len(files), s.Least, err)
	}
	if s.Path == nil {
		s.Path = func(file string) string { return file }
	}
	var all []mutant
	for _, f := range files {
		m, err := read(f)
		if err != nil {
			t.Fatal(err)
		}
		path := s.Path(m.file)
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(source, []byte(m.old)); n != 1 {
			t.Errorf("%s: its old text is found %d times in %s, expected once; adapt it to the code", f, n, path)
		}
		if strings.Contains(m.name, s.Names) {
			all = append(all, m)
		}
	}
	if t.Failed() || testing.Short() {
		return
	}
	if s.Draw >= 0 {
		all = slices.DeleteFunc(all, s.rare)
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:min(s.Draw, len(all))]
	}
	gate := make(chan struct{}, runtime.GOMAXPROCS(0))
	var tried sync.WaitGroup
	for _, m := range all {
		dir := t.TempDir()
		tried.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			if err := s.caught(t.Context(), m, dir); err != nil {
				t.Errorf("%s (%s): %v", m.name, m.what, err)
				return
			}
			t.Logf("caught: %s (%s)", m.name, m.what)
		})
	}
	tried.Wait()
}

func (s Suite) rare(m mutant) bool { return m.seed == "" && s.Rare != nil && s.Rare(m.name) }

// caught builds and runs the simulation with the bug; nil means that it found something.
func (s Suite) caught(ctx context.Context, m mutant, dir string) error {
	source, err := filepath.Abs(s.Path(m.file))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	changed, overlay, program := filepath.Join(dir, filepath.Base(source)), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "simulation.test")
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
	limit := 10 * time.Minute
	if s.rare(m) {
		limit = time.Hour
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", program, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("does not build: %w\n%s", err, out)
	}
	args := s.Args(m.name, m.seed)
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("survives %s", strings.Join(args, " "))
	case !bytes.Contains(out, []byte(s.Found)):
		return fmt.Errorf("the simulation broke in another way: %w\n%s", err, out)
	}
	return nil
}
