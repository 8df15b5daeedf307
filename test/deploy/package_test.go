package deploytest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
)

// The packages are made by the command that people use; the deb is installed
// into an empty root folder, upgraded over an edited configuration, and purged.
func TestPackages(t *testing.T) {
	t.Parallel()
	testneed.Tool(t, "make", "make")
	testneed.Tool(t, "dpkg", "dpkg")
	out := t.TempDir()
	makeIn(t, servertest.Root(), "packages", "PACKAGES="+out)
	rpm := one(t, filepath.Join(out, "*.rpm"))
	if text, err := os.ReadFile(rpm); err != nil || !bytes.HasPrefix(text, []byte{0xed, 0xab, 0xee, 0xdb}) {
		t.Errorf("%s does not begin as an rpm: %v", rpm, err)
	}
	deb := one(t, filepath.Join(out, "*.deb"))
	t.Run("lintian", func(t *testing.T) { lint(t, testneed.Tool(t, "lintian", "lintian"), "--fail-on", "error,warning", deb) })
	t.Run("rpmlint", func(t *testing.T) {
		lint(t, testneed.Tool(t, "rpmlint", "rpmlint"), "-c", filepath.Join(servertest.Root(), "deploy/package/rpmlint.toml"), rpm)
	})

	root := t.TempDir()
	for _, dir := range []string{"etc", "var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"etc/passwd", "etc/group", "var/lib/dpkg/status", "var/lib/dpkg/available"} {
		write(t, filepath.Join(root, file), "")
	}
	if os.Geteuid() != 0 {
		// Only root may give files away; the content can be looked at all the same.
		if text, err := exec.Command("dpkg", "-x", deb, root).CombinedOutput(); err != nil {
			t.Fatalf("dpkg -x: %v\n%s", err, text)
		}
		installed(t, root)
		return
	}
	dpkg(t, root, "-i", deb)
	installed(t, root)
	config := filepath.Join(root, "etc/external-server/config.json")
	for _, c := range []struct {
		path string
		mode os.FileMode
	}{{config, 0o640}, {filepath.Dir(config), 0o750}} {
		info, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != c.mode {
			t.Errorf("%s has mode %o, expected %o", c.path, info.Mode().Perm(), c.mode)
		}
	}
	stateFolders(t, root)
	secrets := madeSecrets(t, root)
	checkAsService(t, root)

	edited := `{"company_name": "edited"}`
	write(t, config, edited)
	dpkg(t, root, "-i", deb)
	if text, err := os.ReadFile(config); err != nil || string(text) != edited {
		t.Errorf("the edited configuration did not survive an upgrade: %v\n%s", err, text)
	}
	if again := madeSecrets(t, root); !maps.Equal(again, secrets) {
		t.Error("an upgrade changed tokens or keys")
	}
	dpkg(t, root, "-P", "external-server")
	for _, gone := range []string{"usr/bin/external-server", "etc/external-server", "var/lib/external-server", "var/log/external-server"} {
		if _, err := os.Stat(filepath.Join(root, gone)); err == nil {
			t.Errorf("%s is still there after purging", gone)
		}
	}
}

// makeIn runs a target of the Makefile.
func makeIn(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", args...)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, text)
	}
}

// lint runs a checker that says by its exit code whether it has found something.
func lint(t *testing.T, program string, args ...string) {
	t.Helper()
	if text, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", program, err, text)
	}
}

// madeSecrets returns the tokens and the key that the installation made, for root and the
// server only; no two are the same. The key is one that the server accepts.
func madeSecrets(t *testing.T, root string) map[string]string {
	t.Helper()
	_, gid := serviceUser(t, root)
	secrets, seen := map[string]string{}, map[string]bool{}
	for _, name := range []string{"admin-token", "monitoring-token", "api-key", "api-keys.json"} {
		path := filepath.Join(root, "etc/external-server", name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o640 || owner.Uid != 0 || owner.Gid != gid {
			t.Errorf("%s has mode %04o and belongs to %d:%d, expected 0640 and 0:%d", name, info.Mode().Perm(), owner.Uid, owner.Gid, gid)
		}
		secrets[name] = strings.TrimSpace(string(text))
		if len(secrets[name]) < 32 || seen[secrets[name]] {
			t.Errorf("%s holds %d bytes, or the same as another file", name, len(secrets[name]))
		}
		seen[secrets[name]] = true
	}
	if sum := sha256.Sum256([]byte(secrets["api-key"])); !strings.Contains(secrets["api-keys.json"], hex.EncodeToString(sum[:])) {
		t.Error("the key is not that of the keys file")
	}
	return secrets
}

// stateFolders: they are there before the first start, as systemd would make them,
// because the configuration is checked before.
func stateFolders(t *testing.T, root string) {
	t.Helper()
	uid, gid := serviceUser(t, root)
	unit := readUnit(t)
	for _, f := range []struct{ dir, mode string }{{"var/lib", "StateDirectoryMode"}, {"var/log", "LogsDirectoryMode"}} {
		path := filepath.Join(root, f.dir, "external-server")
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		owner := info.Sys().(*syscall.Stat_t)
		if owner.Uid != uid || owner.Gid != gid {
			t.Errorf("%s belongs to %d:%d, expected %d:%d", path, owner.Uid, owner.Gid, uid, gid)
		}
		if want := setting(unit, f.mode); len(want) != 1 || fmt.Sprintf("%04o", info.Mode().Perm()) != want[0] {
			t.Errorf("%s has mode %04o, systemd would make it %v", path, info.Mode().Perm(), want)
		}
	}
}

// checkAsService runs what the package tells to run before the first start, as the
// user of the service.
func checkAsService(t *testing.T, root string) {
	t.Helper()
	uid, gid := serviceUser(t, root)
	text, err := os.ReadFile(filepath.Join(root, "etc/external-server/config.json"))
	if err != nil {
		t.Fatal(err)
	}
	for dir := root; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(root, "etc/external-server/check.json")
	write(t, path, strings.NewReplacer("/var/lib/", root+"/var/lib/", "/etc/", root+"/etc/").Replace(string(text)))
	if err := os.Chown(path, 0, int(gid)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, "usr/bin/external-server"), "check", path)
	cmd.Dir = root
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "all ok") {
		t.Errorf("check as the user of the service, before the first start: %v\n%s", err, out)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// serviceUser returns the numbers of the user that the package made.
func serviceUser(t *testing.T, root string) (uid, gid uint32) {
	t.Helper()
	accounts, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^external-server:[^:]*:(\d+):(\d+):`).FindSubmatch(accounts)
	if m == nil {
		t.Fatalf("the user was not made:\n%s", accounts)
	}
	numbers := [2]uint32{}
	for i := range numbers {
		n, err := strconv.ParseUint(string(m[i+1]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[i] = uint32(n)
	}
	return numbers[0], numbers[1]
}

// installed looks at what the package put into root, and runs it.
func installed(t *testing.T, root string) {
	t.Helper()
	for _, path := range []string{
		"usr/lib/systemd/system/external-server.service", "usr/lib/sysusers.d/external-server.conf",
		"usr/lib/external-server/modules", "usr/include/fleet_protocol_module.h",
		"usr/share/doc/external-server/install.md", "usr/share/doc/external-server/examples/fleet.json.example",
		"usr/share/doc/external-server/examples/for_docker.json", "usr/share/doc/external-server/performance.svg",
		"usr/share/doc/external-server/deploy/prometheus/alerts.yml", "usr/share/doc/external-server/deploy/grafana/external-server.json",
		"usr/share/doc/external-server/deploy/mosquitto/mosquitto.conf",
		"usr/share/man/man1/external-server-health.1.gz", "usr/share/man/man5/external-server-config.5.gz", "usr/share/bash-completion/completions/external-server",
		"usr/share/doc/external-server/copyright", "usr/share/doc/external-server/changelog.gz", "usr/share/doc/external-server/THIRD-PARTY-NOTICES.gz",
		"usr/share/external-server/fleet_module.proto", "usr/share/external-server/fleet_protocol_module.h",
		"usr/share/doc/external-server/examples/modules/c/example_module.c", "usr/share/doc/external-server/examples/modules/go/main.go",
		"usr/share/doc/external-server/examples/modules/python/example_module.py", "usr/share/doc/external-server/examples/modules/node/example_module.js",
	} {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	// The unit names files of the package.
	unit := readUnit(t)
	for _, line := range append(setting(unit, "ExecStart"), setting(unit, "ExecReload")...) {
		for _, path := range regexp.MustCompile(`/(usr|etc)/\S+external-server\S*`).FindAllString(line, -1) {
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("the unit runs %s: %v", line, err)
			}
		}
	}
	config := packagedConfig(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "config.json")
	servertest.WriteConfig(t, path, config)
	text, err := exec.Command(filepath.Join(root, "usr/bin/external-server"), "check", path).CombinedOutput()
	if err != nil || !strings.Contains(string(text), "all ok") || strings.Contains(string(text), "warning:") {
		t.Errorf("check of the packaged configuration: %v\n%s", err, text)
	}
}

func dpkg(t *testing.T, root string, args ...string) {
	t.Helper()
	// The maintainer scripts run here with DPKG_ROOT set; nothing but the package
	// is in that root.
	args = append([]string{"--root=" + root, "--force-script-chrootless", "--force-depends"}, args...)
	cmd := exec.Command("dpkg", args...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, text)
	}
}

func one(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
