package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// What the README says works as it is pasted, in the folder of the repository after
// make: the server starts without flags, and the commands of the chapter about
// operations talk to it.
func TestReadme(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	config, err := os.ReadFile(filepath.Join(servertest.Root(), "config/config.json"))
	if err != nil {
		t.Fatal(err)
	}
	// The same file on free ports, in a folder that looks like the repository.
	broker := brokertest.FreeAddress(t)
	text := strings.Replace(string(config), `"embedded_broker": true`, fmt.Sprintf(`"embedded_broker": {"listen": %q}`, broker), 1)
	text = strings.Replace(text, `"admin": {}`, fmt.Sprintf(`"admin": {"listen": %q}`, brokertest.FreeAddress(t)), 1)
	for _, d := range []string{"bin", "config", "build/modules"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// What a person ends with Ctrl-C ends when it has shown what the test looks for. With job control (set -m)
	// what runs in the background gets SIGINT too.
	wrapper := fmt.Sprintf(`#!/bin/bash
set -m
case $1 in
events) %[1]q "$@" --all >shown 2>&1 & until grep -q joined shown; do kill -0 $! || break; sleep 0.05; done
	kill -INT $!; wait $!; ended=$?; cat shown; exit $ended ;;
sniff) %[1]q simulate --broker %[2]s --company demo --prefix car --duration 1h >simulated 2>&1 & %[1]q "$@" -n 5
	ended=$?; kill $!; wait $!; exit $ended ;;
simulate) exec %[1]q "$@" --broker %[2]s ;;
*) exec %[1]q "$@" ;;
esac
`, servertest.Binary(t), broker)
	write(t, filepath.Join(root, "config/config.json"), text)
	servertest.WriteProgram(t, filepath.Join(root, "bin/external-server"), []byte(wrapper))
	if err := os.Symlink(servertest.Example(t), filepath.Join(root, "build/modules/libexample-module.so")); err != nil {
		t.Fatal(err)
	}
	s := servertest.Start(t, servertest.Options{Dir: root})
	s.WaitLog("connected to the broker")
	readme, err := os.ReadFile(filepath.Join(servertest.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, _ := strings.Cut(string(readme), "\n## Operations\n")
	_, block, _ := strings.Cut(chapter, "```sh\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatal("the chapter has no commands")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-ec", block)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v", err)
	}
	for _, want := range []string{"1 cars: 0 running", "MODULE  STATE", "isolated library build/modules", "0 cars added", "1 of 1 cars were connected", "demo/car1:", "joined", "→ server"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the commands do not print %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
