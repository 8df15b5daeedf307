//go:build cgo

package cabi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/module"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// wantError checks that err is one line that contains all of the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, expected one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error lacks %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error has more than one line: %q", err)
	}
}

// foreignELF is the header of a shared library for 64 bit ARM big-endian or
// whatever is asked for.
func foreignELF(order binary.ByteOrder, machine uint16) []byte {
	head := make([]byte, 64)
	copy(head, "\x7fELF\x02\x01\x01")
	if order == binary.ByteOrder(binary.BigEndian) {
		head[5] = 2
	}
	order.PutUint16(head[16:], 3) // ET_DYN
	order.PutUint16(head[18:], machine)
	return head
}

func TestOpenRefusesBadFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile(build(t, probeSource))
	if err != nil {
		t.Fatal(err)
	}
	program := bytes.Clone(good)
	binary.LittleEndian.PutUint16(program[16:], 2) // ET_EXEC
	noSections := bytes.Clone(good[:len(good)/2])  // cut, and nothing refers to the end
	clear(noSections[40:48])                       // e_shoff
	clear(noSections[60:64])                       // e_shnum, e_shstrndx

	tests := []struct {
		name  string
		path  string
		words []string
	}{
		{"missing", filepath.Join(dir, "absent.so"), []string{"absent.so", "no such file", "lib_path"}},
		{"folder", dir, []string{"not a regular file"}},
		{"text", write("text.so", []byte("this is a text file, no library\n")), []string{"text.so", "not a shared library", "no ELF header"}},
		{"empty", write("empty.so", nil), []string{"not a shared library"}},
		{"little-endian foreign", write("foreign.so", foreignELF(binary.LittleEndian, 243)), []string{"another architecture", "EM_RISCV", "EM_X86_64", "rebuild"}},
		{"big-endian foreign", write("big.so", foreignELF(binary.BigEndian, 22)), []string{"another architecture", "EM_S390"}},
		{"program", write("program.so", program), []string{"not a shared library", "-shared"}},
		{"cut", write("cut.so", good[:len(good)/2]), []string{"damaged or incomplete"}},
		{"cut without sections", write("cut2.so", noSections[:4500]), []string{"damaged or incomplete", "beyond"}},
		{"missing symbols", build(t, probeSource, "-DPROBE_INCOMPLETE"), []string{"lacks the function pop_command, command_ack", "extern \"C\""}},
		{"undefined symbol", build(t, probeSource, "-DPROBE_NUMBER=nowhere()", "-include", undefinedHeader(t)), []string{"cannot be loaded", "nowhere", "ldd"}},
		{"wrong number", build(t, probeSource, "-DPROBE_NUMBER=7"), []string{"reports module number 7", "configured as module 77"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			lib, err := Open(test.path, Options{Expect: probeNumber})
			if lib != nil {
				t.Fatal("a library was returned")
			}
			wantError(t, err, test.words...)
		})
	}
}

func undefinedHeader(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "undefined.h")
	if err := os.WriteFile(path, []byte("extern int nowhere(void);\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenAcceptsAnyNumberWithoutExpectation(t *testing.T) {
	lib, err := Open(build(t, probeSource, "-DPROBE_NUMBER=7"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if lib.Number() != 7 {
		t.Errorf("Number() = %d, expected 7", lib.Number())
	}
	if err := lib.Close(); err != nil {
		t.Error(err)
	}
	_, err = lib.Open(t.Context(), module.InstanceSpec{Car: testCar})
	if !errors.Is(err, ErrClosed) {
		t.Errorf("Open after Close: %v", err)
	}
}

func TestOpenRelativePath(t *testing.T) {
	path := build(t, probeSource)
	t.Chdir(filepath.Dir(path))
	if _, err := Open(filepath.Base(path), Options{Expect: probeNumber}); err != nil {
		t.Error(err)
	}
}

func TestSupportsAsksOncePerType(t *testing.T) {
	p := newProbe(t)
	for range 5 {
		for deviceType, want := range map[uint32]bool{0: true, 1: false, 4294967294: true} {
			if got := p.lib.Supports(deviceType); got != want {
				t.Errorf("Supports(%d) = %v, expected %v", deviceType, got, want)
			}
		}
	}
	if !p.lib.Supports(1000000) {
		t.Error("the library was not asked exactly once for each of the three types before")
	}
	for deviceType := range uint32(2 * module.MaxRecalled) {
		if p.lib.Supports(deviceType) != (deviceType%2 == 0) {
			t.Fatalf("wrong answer for type %d", deviceType)
		}
	}
	if len(p.lib.supports) != module.MaxRecalled {
		t.Errorf("%d answers are remembered, expected the bound %d", len(p.lib.supports), module.MaxRecalled)
	}
	if err := p.lib.Close(); err != nil {
		t.Error(err)
	}
	if p.lib.Supports(4000000) {
		t.Error("a closed library was asked")
	}
}

func TestInitNull(t *testing.T) {
	p := newProbe(t)
	_, err := p.lib.Open(t.Context(), p.spec("init=null", "api_key=sEcReT"))
	wantError(t, err, "module 77", p.lib.path, testCar.String(), "NULL", "config")
	if strings.Contains(err.Error()+p.log.String(), "sEcReT") {
		t.Error("a configuration value is visible")
	}
	if err := p.lib.Close(); err != nil {
		t.Errorf("a failed init counts as an open context: %v", err)
	}
}

func TestInitReceivesPairsInOrder(t *testing.T) {
	p := newProbe(t)
	spec := p.spec()
	spec.Config = append(spec.Config, module.Pair{Key: "z", Value: ""}, module.Pair{Key: "a\x00b", Value: "ž\x00"}, module.Pair{})
	inst, err := p.lib.Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(p.record)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, pair := range spec.Config {
		want.WriteString("init " + hexOf(pair.Key) + "=" + hexOf(pair.Value) + "\n")
	}
	if string(text) != want.String() {
		t.Errorf("init received\n%s\nexpected\n%s", text, want.String())
	}
	if err := p.lib.Close(); err == nil {
		t.Error("the library was closed with an open context")
	}
	p.inst = inst
	p.closeClean()
}

func TestInitThatDoesNotReturn(t *testing.T) {
	p := newProbe(t)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan outcome, 1)
	go func() {
		_, err := p.lib.Open(ctx, p.spec("block=init"))
		results <- outcome{err: err}
	}()
	p.waitFor("blocked init")
	cancel()
	if err := await(t, results).err; !errors.Is(err, module.ErrStuck) || !errors.Is(err, context.Canceled) {
		t.Errorf("Open returned %v, expected ErrStuck", err)
	}
	p.letGo()
	p.waitFor("destroy held=0 violations=0") // the late context is not leaked
	testwait.Until(t, "the library can be closed", func() bool { return p.lib.Close() == nil })

	_, err := p.lib.Open(ctx, p.spec())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Open with a dead context: %v", err)
	}
}

func TestHeaderCompiles(t *testing.T) {
	header := filepath.Join(includeDir, "fleet_protocol_module.h")
	for _, std := range []string{"c11", "c17"} {
		command := exec.Command("gcc", "-std="+std, "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", header)
		if text, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", std, err, text)
		}
	}
	t.Run("C++", func(t *testing.T) {
		command := exec.Command(testneed.Tool(t, "g++", "g++"), "-x", "c++", "-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", header)
		if text, err := command.CombinedOutput(); err != nil {
			t.Errorf("g++: %v\n%s", err, text)
		}
	})
	// The layout assertions do assert something.
	packed := filepath.Join(t.TempDir(), "packed.c")
	if err := os.WriteFile(packed, []byte("#pragma pack(1)\n#include \"fleet_protocol_module.h\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command("gcc", "-std=c11", "-fsyntax-only", "-I"+includeDir, packed).CombinedOutput()
	if err == nil || !bytes.Contains(text, []byte("static assertion failed")) {
		t.Errorf("a packed header is accepted: %v\n%s", err, text)
	}
}

func FuzzCheckELF(f *testing.F) {
	f.Add([]byte("text"))
	f.Add(foreignELF(binary.LittleEndian, 243))
	f.Add(foreignELF(binary.BigEndian, 62))
	f.Add(append(foreignELF(binary.LittleEndian, 62), make([]byte, 200)...))
	f.Fuzz(func(t *testing.T, content []byte) {
		err := checkELF(bytes.NewReader(content), int64(len(content)), "amd64")
		if err == nil && (len(content) < 64 || !bytes.HasPrefix(content, []byte("\x7fELF")) || content[18] != 62) {
			t.Error("accepted what is no library for amd64")
		}
	})
}
