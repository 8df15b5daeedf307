// Package scripttest plays conversation scripts: text files in which a line is one
// input of a state machine, and the lines below it that begin with "->" are the
// effects it must have, all of them, in order. Empty lines and those that begin with
// "#" are for the reader. With -update the effects are written anew instead; read the
// difference.
//
// It may import fleet only, and nothing but tests may import it.
package scripttest

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"external-server/internal/fleet"
)

var update = flag.Bool("update", false, "rewrite the expectations of the conversation scripts")

// atLeast is the number of scripts below which something is wrong with the folder.
const atLeast = 10

// Script is a script that is being played.
type Script struct {
	t     *testing.T
	where string
	out   strings.Builder
}

// Run plays each file testdata/*.txt as a test of its own. begin is called at its start
// and returns what is done with the words of each input.
func Run(t *testing.T, begin func(s *Script) (do func(words []string))) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < atLeast {
		t.Fatalf("found %d scripts: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, file, string(raw), begin)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(raw); got != want {
				t.Errorf("%s: the conversation differs; %s", file, difference(want, got))
			}
		})
	}
}

func play(t *testing.T, file, script string, begin func(*Script) func([]string)) string {
	s := &Script{t: t}
	do := begin(s)
	scan := bufio.NewScanner(strings.NewReader(script))
	for n := 1; scan.Scan(); n++ {
		line := scan.Text()
		if strings.HasPrefix(line, "->") {
			continue
		}
		s.out.WriteString(line + "\n")
		s.where = fmt.Sprintf("%s:%d", file, n)
		if trimmed := strings.TrimSpace(line); trimmed != "" && !strings.HasPrefix(trimmed, "#") {
			do(strings.Fields(trimmed))
		}
	}
	return s.out.String()
}

// difference shows where two texts begin to differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < len(w) && i < len(g) && w[i] == g[i] {
		i++
	}
	around := func(lines []string) string {
		return strings.Join(lines[min(max(0, i-3), len(lines)):min(i+6, len(lines))], "\n")
	}
	return fmt.Sprintf("line %d\nwant:\n%s\ngot:\n%s", i+1, around(w), around(g))
}

// Effect notes an effect of the present input.
func (s *Script) Effect(text string) { s.out.WriteString("-> " + text + "\n") }

// Fatal ends the test with the place in the script.
func (s *Script) Fatal(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s: %s", s.where, fmt.Sprintf(format, args...))
}

// Number reads a number of 32 bits.
func (s *Script) Number(text string) uint32 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		s.Fatal("%v", err)
	}
	return uint32(n)
}

// Device reads "module/type/role/name" or, with a priority, "module/type/role/name:5".
func (s *Script) Device(text string) fleet.Device {
	text, priority, found := strings.Cut(text, ":")
	parts := strings.Split(text, "/")
	if len(parts) != 4 {
		s.Fatal("device %q: expected module/type/role/name", text)
	}
	d := fleet.Device{Module: int32(s.Number(parts[0])), Type: s.Number(parts[1]), Role: parts[2], Name: parts[3]}
	if found {
		d.Priority = s.Number(priority)
	}
	return d
}
