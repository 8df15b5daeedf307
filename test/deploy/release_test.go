package deploytest

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
)

// The same commit makes the same bytes, whatever the folder is called and whenever that
// is. For this machine's architecture: the other one is made the same way.
func TestRelease(t *testing.T) {
	t.Parallel()
	testneed.Tool(t, "make", "make")
	arch := runtime.GOARCH
	release := func(from string) string {
		out := filepath.Join(t.TempDir(), "release")
		makeIn(t, from, "release", "RELEASE="+out, "ARCHES="+arch, "VERSION=1.2.3", "COMMIT=0123456789abcdef", "SOURCE_DATE_EPOCH=1700000000")
		return out
	}
	out := release(servertest.Root())
	first := sums(t, out)
	want := []string{"SHA256SUMS", "external-server-1.2.3-1." + map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch] + ".rpm",
		"external-server_1.2.3-1_" + arch + ".deb", "external-server_1.2.3_linux_" + arch + ".cdx.json", "external-server_1.2.3_linux_" + arch + ".tar.gz"}
	if got := slices.Sorted(maps.Keys(first)); !slices.Equal(got, want) {
		t.Errorf("made: %v\nexpected %v", got, want)
	}
	copied := filepath.Join(t.TempDir(), "elsewhere")
	copyTree(t, servertest.Root(), copied, func(path string) bool {
		return slices.Contains([]string{".git", "bin", "build"}, path)
	})
	if second := sums(t, release(copied)); !maps.Equal(first, second) {
		for name := range first {
			if first[name] != second[name] {
				t.Errorf("%s is another one when it is made again", name)
			}
		}
	}
	checkSums(t, out, first)
	checkSBOM(t, filepath.Join(out, want[3]))
	checkArchive(t, filepath.Join(out, want[4]))
}

// sums returns the hash of each file in a folder.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		out[e.Name()] = hex.EncodeToString(sum[:])
	}
	return out
}

func checkSums(t *testing.T, dir string, made map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed[name] = sum
	}
	listed["SHA256SUMS"] = made["SHA256SUMS"]
	if !maps.Equal(listed, made) {
		t.Errorf("SHA256SUMS:\n%s\nexpected %v", text, made)
	}
}

// checkSBOM looks for the versions that are linked, and for nothing of the machine.
func checkSBOM(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" || bom.Metadata.Component.Name != "external-server" || bom.Metadata.Component.Version != "v1.2.3" {
		t.Errorf("%+v is about %+v", bom.BOMFormat, bom.Metadata.Component)
	}
	found := make(map[string]string)
	for _, c := range bom.Components {
		found[c.Name] = c.Version
	}
	for _, name := range []string{"std", "google.golang.org/protobuf", "modernc.org/sqlite", "github.com/spf13/cobra"} {
		if found[name] == "" {
			t.Errorf("%s is not listed", name)
		}
	}
	if strings.Contains(string(text), servertest.Root()) {
		t.Error("the list names a folder of this machine")
	}
}

// checkArchive unpacks the archive and runs what is in it: the server without C library
// serves libraries through the program beside it.
func checkArchive(t *testing.T, path string) {
	t.Helper()
	dir := t.TempDir()
	unpack(t, path, dir)
	top := one(t, filepath.Join(dir, "*"))
	for _, name := range []string{"LICENSE", "THIRD-PARTY-NOTICES", "CHANGELOG.md", "INSTALL", "include/fleet_module.proto", "include/fleet_protocol_module.h",
		"config/config.json", "man/external-server.1.gz", "completion/external-server.bash", "systemd/external-server.service"} {
		if info, err := os.Stat(filepath.Join(top, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	server, host := filepath.Join(top, "external-server"), filepath.Join(top, "external-server-module-host")
	if libraries := needed(t, server); len(libraries) > 0 {
		t.Errorf("the server needs %v", libraries)
	}
	if libraries := needed(t, host); !slices.Contains(libraries, "libc.so.6") {
		t.Errorf("the host of libraries needs %v", libraries)
	}
	text, err := exec.CommandContext(t.Context(), server, "version").CombinedOutput()
	for _, want := range []string{"external-server 1.2.3 go", "\ncommit 0123456789abcdef\n", "\ndate 2023-11-14T22:13:20Z\n", "without cgo"} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("version: %v\n%s\nexpected %q", err, text, want)
		}
	}
	library := servertest.Example(t)
	check := func() (string, error) {
		text, err := exec.CommandContext(t.Context(), server, "module", "check", library).CombinedOutput()
		return string(text), err
	}
	if text, err := check(); err != nil {
		t.Errorf("module check: %v\n%s", err, text)
	}
	if err := os.Remove(host); err != nil {
		t.Fatal(err)
	}
	if text, err := check(); err == nil || !strings.Contains(text, "external-server-module-host of the same release") {
		t.Errorf("module check without the host of libraries: %v\n%s", err, text)
	}
}

// needed returns the shared libraries of a program; it must be stripped.
func needed(t *testing.T, path string) []string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil || f.Section(".zdebug_info") != nil {
		t.Errorf("%s is not stripped", path)
	}
	out, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpack(t *testing.T, path, dir string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Uname != "" || h.ModTime.Unix() != 1700000000 {
			t.Errorf("%s belongs to %d %q, of %v", h.Name, h.Uid, h.Uname, h.ModTime)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(h.Name, 0o755)
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				syscall.ForkLock.RLock() // as servertest.WriteProgram
				err = root.WriteFile(h.Name, content, os.FileMode(h.Mode).Perm())
				syscall.ForkLock.RUnlock()
			}
		default:
			t.Errorf("%s is of type %q", h.Name, h.Typeflag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
