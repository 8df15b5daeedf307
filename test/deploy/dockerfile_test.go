package deploytest

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// instruction is one instruction of a Dockerfile.
type instruction struct {
	name  string            // in capitals
	flags map[string]string // --name=value
	text  string            // behind the flags
}

// words are the arguments: the elements of an exec form, or what is between
// spaces.
func (i instruction) words(t *testing.T) []string {
	t.Helper()
	if strings.HasPrefix(i.text, "[") {
		return i.exec(t)
	}
	return strings.Fields(i.text)
}

// exec is the exec form, which starts no shell.
func (i instruction) exec(t *testing.T) []string {
	t.Helper()
	var out []string
	if err := json.Unmarshal([]byte(i.text), &out); err != nil || len(out) == 0 {
		t.Fatalf("%s %s: expected the exec form, a JSON array: %v", i.name, i.text, err)
	}
	return out
}

// stage is what follows one FROM.
type stage struct {
	name, from string
	steps      []instruction
}

// all returns the instructions of one kind.
func (s stage) all(name string) []instruction {
	var out []instruction
	for _, i := range s.steps {
		if i.name == name {
			out = append(out, i)
		}
	}
	return out
}

// one returns the only instruction of a kind.
func (s stage) one(t *testing.T, name string) instruction {
	t.Helper()
	found := s.all(name)
	if len(found) != 1 {
		t.Fatalf("the stage %q has %d instructions %s, expected one", s.name, len(found), name)
	}
	return found[0]
}

var flag = regexp.MustCompile(`^--([a-z-]+)=(\S+)\s*`)

// parseDockerfile returns the arguments before the first stage, and the stages.
func parseDockerfile(t *testing.T, path string) (args map[string]string, stages []stage) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	args = make(map[string]string)
	var logical string
	for n, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		logical += line
		if before, more := strings.CutSuffix(logical, "\\"); more {
			logical = before
			continue
		}
		if strings.TrimSpace(logical) != "" {
			if err := add(args, &stages, logical); err != nil {
				t.Fatalf("%s:%d: %v", path, n+1, err)
			}
		}
		logical = ""
	}
	return args, stages
}

func add(args map[string]string, stages *[]stage, line string) error {
	name, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok || name != strings.ToUpper(name) {
		return fmt.Errorf("%q is no instruction", line)
	}
	i := instruction{name: name, flags: make(map[string]string), text: strings.TrimSpace(rest)}
	for m := flag.FindStringSubmatch(i.text); m != nil; m = flag.FindStringSubmatch(i.text) {
		i.flags[m[1]] = m[2]
		i.text = i.text[len(m[0]):]
	}
	switch {
	case name == "FROM":
		words := strings.Fields(i.text)
		s := stage{from: expand(words[0], args)}
		if len(words) == 3 && words[1] == "AS" {
			s.name = words[2]
		}
		*stages = append(*stages, s)
	case len(*stages) == 0 && name == "ARG":
		key, value, _ := strings.Cut(i.text, "=")
		args[key] = strings.Trim(value, `"`)
	case len(*stages) == 0:
		return fmt.Errorf("%s before the first FROM", name)
	default:
		last := &(*stages)[len(*stages)-1]
		last.steps = append(last.steps, i)
	}
	return nil
}

func expand(text string, values map[string]string) string {
	return os.Expand(text, func(key string) string { return values[key] })
}
