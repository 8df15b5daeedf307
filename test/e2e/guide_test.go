package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
)

// The module authors' guide works as it is written: its shell commands are run one
// after the other, in an empty folder. The chapters about languages are tested apart.
func TestModuleGuide(t *testing.T) {
	t.Parallel()
	text := guide(t)
	begin, end := strings.Index(text, "### In Go\n"), strings.Index(text, "### The protocol\n")
	if begin < 0 || end < begin {
		t.Fatal("the chapters about languages are not where they were")
	}
	out := runGuide(t, text[:begin]+text[end:], 4)
	for _, want := range []string{"module 42 (./liblamp-post.so): no rule is broken", "all ok", "stopped",
		`reports {"dark": true}`, `commands the device: {"lamp": true}`, "module 42 (./liblamp-post-asan.so): no rule is broken"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

// A module in each language is made from an empty folder outside the repository.
func TestModuleGuideLanguages(t *testing.T) {
	for language, c := range map[string]struct {
		need func(t *testing.T)
		want []string
	}{
		"Go":     {func(*testing.T) {}, []string{"module 1001 (./my-module/my-module): no rule is broken"}},
		"Python": {func(t *testing.T) { testneed.PythonProtobuf(t) }, []string{"module 1002", "no rule is broken", `commands the device: {"lit_up": true}`}},
		"JavaScript": {func(t *testing.T) { testneed.Tool(t, "nodejs", "node") },
			[]string{"module 1003", "no rule is broken", `commands the device: {"lit_up":true}`}},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			c.need(t)
			_, chapter, _ := strings.Cut(guide(t), "### In "+language+"\n")
			chapter, _, _ = strings.Cut(chapter, "\n### ")
			out := runGuide(t, chapter, 1)
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
		})
	}
}

func guide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servertest.Root(), "docs", "modules.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// runGuide runs the commands of a text, of which there are at least so many blocks.
func runGuide(t *testing.T, text string, atLeast int) string {
	t.Helper()
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	blocks := 0
	for rest := text; ; {
		_, after, found := strings.Cut(rest, "```sh\n")
		if !found {
			break
		}
		block, remaining, _ := strings.Cut(after, "```")
		script.WriteString(block)
		blocks++
		rest = remaining
	}
	if blocks < atLeast {
		t.Fatalf("only %d blocks of commands found", blocks)
	}
	binary := servertest.Plain(t) // the guide's sanitizer and the race detector do not mix
	cmd := exec.Command("bash", "-c", script.String())
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "SOURCE="+servertest.Root(), "EXTERNAL_SERVER=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
