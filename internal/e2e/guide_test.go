package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/servertest"
	"external-server/internal/testneed"
)

// The module authors' guide works as it is written: its shell commands are run
// one after the other, in an empty folder.
func TestModuleGuide(t *testing.T) {
	t.Parallel()
	testneed.PythonProtobuf(t)
	text, err := os.ReadFile(filepath.Join(servertest.Root(), "docs", "modules.md"))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	blocks := 0
	for rest := string(text); ; {
		_, after, found := strings.Cut(rest, "```sh\n")
		if !found {
			break
		}
		block, remaining, _ := strings.Cut(after, "```")
		script.WriteString(block)
		blocks++
		rest = remaining
	}
	if blocks < 5 {
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
	for _, want := range []string{"module 42 (./liblamp-post.so): no rule is broken", "all ok", "module 1001", "module 1002", "stopped",
		"module 42 (./liblamp-post-asan.so): no rule is broken"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}
