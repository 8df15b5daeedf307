package deploytest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
)

// Every configuration that comes with the server keeps the sessions of the cars, in a
// folder that lives as long as they have to.
func TestSessionsAreKept(t *testing.T) {
	_, stages := parseDockerfile(t, filepath.Join(servertest.Root(), "Dockerfile"))
	volumes := stages[len(stages)-1].one(t, "VOLUME").exec(t)
	for file, parents := range map[string][]string{
		"deploy/package/config.json": {"/var/lib/" + setting(readUnit(t), "StateDirectory")[0]},
		"config/for_docker.json":     volumes,
		"config/for_compose.json":    volumes,
		"config/config.json":         {"build"},
	} {
		text, err := os.ReadFile(filepath.Join(servertest.Root(), file))
		if err != nil {
			t.Fatal(err)
		}
		var config struct {
			Dir string `json:"state_directory"`
		}
		if err := json.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		// Not the folder itself, which others may read or write.
		if !slices.Contains(parents, filepath.Dir(config.Dir)) {
			t.Errorf("%s: state_directory is %q, expected a folder in one of %q", file, config.Dir, parents)
		}
	}
}

// script runs a script of the packages on a machine with systemd, and returns what it
// asked systemctl and kill for.
func script(t *testing.T, name string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(servertest.Root(), "deploy/package", name))
	if err != nil {
		t.Fatal(err)
	}
	calls := filepath.Join(dir, "calls")
	for program, answer := range map[string]string{"systemctl": "case $1 in show) echo 4711 ;; esac", "systemd-sysusers": ":"} {
		body := "#!/bin/sh\necho " + program + ` "$@" >>` + calls + "\n" + answer + "\n"
		servertest.WriteProgram(t, filepath.Join(dir, program), []byte(body))
	}
	// kill is a command of the shell; the folder tells that systemd runs.
	prelude := "kill() { echo kill \"$@\" >>" + calls + "; }\n"
	path := filepath.Join(dir, name)
	write(t, path, prelude+strings.ReplaceAll(string(text), "/run/systemd/system", dir))
	cmd := exec.Command(testneed.Tool(t, "sh", "sh"), append([]string{path}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	asked, err := os.ReadFile(calls)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(asked)
}

// An upgrade never stops the server for longer than a restart needs; the removal of the
// package is the final stop.
func TestUpgradeAndRemoval(t *testing.T) {
	for _, args := range [][]string{{"upgrade", "2.0"}, {"1"}} { // deb, rpm
		if asked := script(t, "preremove.sh", args...); asked != "" {
			t.Errorf("before the upgrade %q:\n%s", args, asked)
		}
	}
	for _, arg := range []string{"remove", "0"} {
		asked := script(t, "preremove.sh", arg)
		final, stop := strings.Index(asked, "kill -USR1 4711"), strings.Index(asked, "systemctl disable --now external-server.service")
		if final < 0 || stop < final {
			t.Errorf("before the removal (%s), expected SIGUSR1 and the end of the service:\n%s", arg, asked)
		}
	}
	text, err := os.ReadFile(filepath.Join(servertest.Root(), "deploy/package/postinstall.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.Contains(s, "systemctl try-restart external-server.service") || strings.Contains(s, "systemctl stop") {
		t.Error("after an upgrade the service has to be restarted, in one step")
	}
}
