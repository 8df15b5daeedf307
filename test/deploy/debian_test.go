package deploytest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
)

// debianLimit bounds fetching a Debian from its mirror.
const debianLimit = 8 * time.Minute

// debian returns the root folder of a minimal Debian, made once and kept in build/test.
// The test is left out where there is none to be had.
func debian(t *testing.T) string {
	t.Helper()
	debootstrap := testneed.Tool(t, "debootstrap", "debootstrap", "/usr/sbin/debootstrap")
	if os.Geteuid() != 0 {
		t.Skip("only root may make a Debian")
	}
	kept := filepath.Join(servertest.Root(), "build", "test", "debian-bookworm.tar")
	lock, err := os.Create(kept + ".lock")
	if err != nil {
		if err = os.MkdirAll(filepath.Dir(kept), 0o755); err == nil {
			lock, err = os.Create(kept + ".lock")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "debian")
	if _, err := os.Stat(kept); err != nil {
		ctx, cancel := context.WithTimeout(t.Context(), debianLimit)
		defer cancel()
		if out, err := exec.CommandContext(ctx, debootstrap, "--variant=minbase", "--include=ca-certificates", "bookworm", root).CombinedOutput(); err != nil {
			t.Skipf("no Debian could be fetched: %v\n%s", err, out)
		}
		run(t, "tar", "-C", root, "--one-file-system", "-cf", kept+".new", ".")
		if err := os.Rename(kept+".new", kept); err != nil {
			t.Fatal(err)
		}
		return root
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "tar", "-C", root, "-xpf", kept)
	return root
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// The deb in a Debian that has nothing else: installed, served, upgraded, removed, purged.
func TestPackageInADebian(t *testing.T) {
	t.Parallel()
	root := debian(t)
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "true").CombinedOutput(); err != nil {
		t.Skipf("this machine gives no room of its own: %v\n%s", err, out)
	}
	var debs [2]string
	for i, version := range []string{"1.2.3", "1.2.4"} {
		out := t.TempDir()
		makeIn(t, servertest.Root(), "packages", "PACKAGES="+out, "VERSION="+version)
		debs[i] = one(t, filepath.Join(out, "*.deb"))
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(servertest.Root(), "scripts/try-packages"), debs[0], debs[1], root).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
