package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// Trouble with the state directory keeps no car from being served: it is said once, with
// the path, and the sessions end with the process.
func TestStateDirectoryCannotBeUsed(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, k *kept)
		said    string
	}{
		{"parent is missing", func(_ *testing.T, k *kept) { k.state = filepath.Join(k.state, "a", "b") }, "is missing: make it"},
		{"is a file", func(t *testing.T, k *kept) { write(t, k.state, "x") }, "this is a file"},
		{"is open to others", func(t *testing.T, k *kept) {
			if err := os.Mkdir(k.state, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(k.state, 0o777); err != nil {
				t.Fatal(err)
			}
		}, "mode"},
		{"disk is full", func(t *testing.T, k *kept) {
			disk := smallDisk(t)
			fill(t, disk)
			k.state = filepath.Join(disk, "state")
		}, "no space left on device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := keep(t, 2, exampleModule(t))
			c.prepare(t, k)
			k.config["state_directory"] = k.state
			k.run()
			if !k.said("state directory cannot be used") || !k.said(c.said) || !k.said(k.state) {
				t.Errorf("the log does not say why: expected %q", c.said)
			}
			k.finishUnnoticed()
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// smallDisk returns a directory on a file system of 512 KiB of its own.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("mounting is not possible here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill uses the disk up and returns the file that does.
func fill(t *testing.T, disk string) string {
	t.Helper()
	path := filepath.Join(disk, "filler")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	return path
}

// A disk that is full for a while costs no session: the journals are begun anew as soon as
// they can be written.
func TestStateDirectoryIsFullForAWhile(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	k := keep(t, 3, exampleModule(t))
	k.state = filepath.Join(disk, "state")
	k.config["state_directory"] = k.state
	k.run()
	filler := fill(t, disk)
	k.server.WaitLog("a journal cannot be used")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the journals can be written again", func() bool {
		return strings.Count(k.server.Log(), "the journals can be used again") > 0
	})
	if n := strings.Count(k.server.Log(), "a journal cannot be used"); n != 1 {
		t.Errorf("told %d times", n)
	}
	k.server.Kill()
	k.again()
	k.finishUnnoticed()
}

// A directory that somebody empties under the server is made anew, and costs no session.
func TestStateDirectoryIsEmptied(t *testing.T) {
	t.Parallel()
	k := keep(t, 3, exampleModule(t))
	k.run()
	k.server.Signal(syscall.SIGSTOP) // it does not make anew what is still being removed
	entries, err := os.ReadDir(k.state)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(k.state, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	k.server.Signal(syscall.SIGCONT)
	k.server.WaitLog("files of the state directory were removed")
	k.server.WaitLog("the journals can be used again")
	k.server.Kill()
	k.again()
	k.finishUnnoticed()
}

// Two servers of a rolling update: the second waits for the directory, says who has it,
// and goes on with the sessions as soon as the first has ended.
func TestStateDirectoryIsInUse(t *testing.T) {
	t.Parallel()
	k := keep(t, 3, exampleModule(t))
	k.run()
	first := k.server
	k.start()
	k.server.WaitLog("the state directory is in use")
	if !k.said(fmt.Sprintf("process %d", first.PID())) {
		t.Error("the holder is not named")
	}
	if code := first.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	k.served(5)
	k.finishUnnoticed()
}

// A directory that was copied to a second server makes two that take each other's
// connections: one of them gives way for good and says between whom, the other serves.
func TestStateDirectoryIsCopied(t *testing.T) {
	t.Parallel()
	k := keep(t, 3, exampleModule(t))
	admin := brokertest.FreeAddress(t)
	k.config["admin"] = obj{"listen": admin}
	k.limit = 5 * time.Second
	k.run()
	for _, c := range k.cars { // two servers serve it
		for r := range gateway.Reason(255) {
			c.expect(r.String())
		}
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", k.state, copied).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	first := k.server
	k.config["state_directory"] = copied
	other := brokertest.FreeAddress(t)
	k.config["admin"] = obj{"listen": other}
	k.start()
	silent := func(s *servertest.Server) bool { return strings.Contains(s.Log(), "stops serving") }
	testwait.Until(t, "one of the servers gives way", func() bool { return silent(first) || silent(k.server) })
	ready := func(address string) bool {
		r, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	}
	loser, losing, winning := first, admin, other
	if silent(k.server) {
		loser, losing, winning = k.server, other, admin
	}
	testwait.Until(t, "the server that gave way is not ready, the other is", func() bool { return !ready(losing) && ready(winning) })
	for _, s := range []*servertest.Server{first, k.server} {
		if !strings.Contains(loser.Log(), fmt.Sprintf("process %d", s.PID())) {
			t.Errorf("process %d is not named", s.PID())
		}
	}
	k.served(3)
	k.halt()
	for _, s := range []*servertest.Server{first, k.server} {
		s.Kill()
	}
}

// Without its directory, or with one that a newer program has made, a server begins clean
// and the cars connect anew; what the newer one has written stays.
func TestStateDirectoryIsNotTheSame(t *testing.T) {
	for _, lost := range []bool{true, false} {
		t.Run(fmt.Sprintf("lost %v", lost), func(t *testing.T) {
			t.Parallel()
			k := keep(t, 2, exampleModule(t))
			k.run()
			k.server.Kill()
			identity := filepath.Join(k.state, "identity.json")
			text, err := os.ReadFile(identity)
			if err != nil {
				t.Fatal(err)
			}
			newer := regexp.MustCompile(`"format":\s*1\b`).ReplaceAllString(string(text), `"format":99`)
			if lost {
				if err := os.RemoveAll(k.state); err != nil {
					t.Fatal(err)
				}
			} else {
				if newer == string(text) {
					t.Fatalf("no format in %s", text)
				}
				write(t, identity, newer)
			}
			k.start()
			k.connectedAnew(2, k.cars...)
			if after, _ := os.ReadFile(identity); !lost && (string(after) != newer || !k.said("newer")) {
				t.Errorf("the directory of a newer program was changed, or nothing was said: %s", after)
			}
			k.finish()
		})
	}
}
