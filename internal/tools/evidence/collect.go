package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kind is a kind of evidence.
type kind int

const (
	script     kind = iota // a conversation script of the core
	simulation             // the auditor or the modelled gateway checks it in every history
	bug                    // a deliberate bug against it is caught by the simulation
	test                   // a test of one package
	fault                  // something breaks around the real server (test/faults)
	realPeer               // a test with a real broker, library, process or recording
	kinds
)

var kindNames = [kinds]string{"script", "simulation", "deliberate bug", "test", "fault", "real peer"}

// realPeers are tests with the real thing on the other side.
var realPeers = []string{
	"internal/app/", "test/e2e/", "internal/broker/", "internal/link/mqtt/", "internal/module/cabi/", "internal/module/host/",
	"internal/lab/gateway/replay_test.go", "internal/lab/gateway/broker_test.go", "internal/lab/capture/", "cmd/",
}

// evidence is, per rule and kind, the names of what shows it.
type evidence map[string]*[kinds][]string

var ruleID = regexp.MustCompile(`\b(SM|SEQ|SESS|STAT|DEV|CMD|CONN|MSG|MOD|DEF|REC|RES|GW|VOC|CLI|CFG|LOG|HTTP|MM|IT)-[0-9]+\b`)

// collect reads the source tree. Every rule of testdata/rules.list is in the
// result, with evidence or without.
func collect(tree fs.FS) (evidence, error) {
	found := make(evidence)
	list, err := fs.ReadFile(tree, "internal/session/testdata/rules.list")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			found[line] = new([kinds][]string)
		}
	}
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name == ".git" || name == "build" || name == "bin") {
			return fs.SkipDir
		}
		if k, ok := kindOf(name); ok && !d.IsDir() {
			return found.read(tree, name, k)
		}
		return nil
	})
	return found, err
}

// kindOf tells what a file can show.
func kindOf(name string) (kind, bool) {
	dir := path.Dir(name)
	switch {
	case dir == "internal/session/testdata" && strings.HasSuffix(name, ".txt"):
		return script, true
	case dir == "test/sim/testdata/mutants" && strings.HasSuffix(name, ".txt"):
		return bug, true
	case dir == "test/sim" && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
		return simulation, true
	case strings.HasPrefix(name, "test/faults/") && strings.HasSuffix(name, "_test.go"):
		return fault, true
	case strings.HasSuffix(name, "_test.go") && dir != "internal/tools/evidence":
		for _, p := range realPeers {
			if strings.HasPrefix(name, p) {
				return realPeer, true
			}
		}
		return test, true
	}
	return 0, false
}

// read notes the rules that a file names: in the "# covers:" lines of a script,
// in the first line of a deliberate bug, in comments and messages of Go.
func (e evidence) read(tree fs.FS, name string, k kind) error {
	file, err := tree.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch k {
		case script:
			if !strings.HasPrefix(line, "# covers:") {
				continue
			}
		case bug:
			if n > 1 {
				continue
			}
		case test, fault, realPeer:
			if !strings.Contains(line, "//") && !strings.Contains(line, `"`) {
				continue
			}
		}
		for _, id := range ruleID.FindAllString(line, -1) {
			if e[id] == nil {
				e[id] = new([kinds][]string)
			}
			if label := label(name, k); !slices.Contains(e[id][k], label) {
				e[id][k] = append(e[id][k], label)
			}
		}
	}
	return lines.Err()
}

func label(name string, k kind) string {
	base := strings.TrimSuffix(strings.TrimSuffix(path.Base(name), ".txt"), ".go")
	if k == fault {
		return strings.TrimSuffix(strings.TrimSuffix(base, "_test"), "_faults")
	}
	if k == test || k == realPeer {
		return strings.TrimPrefix(path.Dir(name), "internal/")
	}
	return base
}

// rules returns the ids in the order of docs/protocol.md.
func (e evidence) rules() []string {
	order := []string{"SM", "SEQ", "SESS", "STAT", "DEV", "CMD", "CONN", "MSG", "VOC", "MOD", "CFG", "CLI", "LOG", "IT", "HTTP", "MM", "GW", "DEF", "REC", "RES"}
	ids := make([]string, 0, len(e))
	for id := range e {
		ids = append(ids, id)
	}
	key := func(id string) (int, int) {
		prefix, number, _ := strings.Cut(id, "-")
		n, _ := strconv.Atoi(number)
		return slices.Index(order, prefix), n
	}
	slices.SortFunc(ids, func(a, b string) int {
		pa, na := key(a)
		pb, nb := key(b)
		return cmp.Or(pa-pb, na-nb)
	})
	return ids
}

// table is the Markdown table of docs/reliability.md.
func (e evidence) table() string {
	var b strings.Builder
	b.WriteString("| Rule |")
	for _, name := range kindNames {
		b.WriteString(" " + name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", int(kinds)) + "\n")
	for _, id := range e.rules() {
		fmt.Fprintf(&b, "| %s |", id)
		for k := range kinds {
			names := slices.Sorted(slices.Values(e[id][k]))
			if n := len(names); n > 3 {
				names = append(names[:3:3], fmt.Sprintf("%d more", n-3))
			}
			b.WriteString(" " + strings.Join(names, ", ") + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}
