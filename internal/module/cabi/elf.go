//go:build cgo

package cabi

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// checkFile looks at a library before the dynamic loader does, for two reasons:
// the loader's words mislead ("cannot open shared object file: No such file
// or directory" is also what it says about a missing dependency), and a file
// that was copied half only kills the process with SIGBUS when it is loaded.
func checkFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("no such file; build or install the library, or correct lib_path")
	case err != nil:
		return fmt.Errorf("cannot be examined: %w", err)
	case !info.Mode().IsRegular():
		return errors.New("is not a regular file; lib_path must name the shared library itself")
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot be read: %w; give the server's user read permission", err)
	}
	defer file.Close()
	return checkELF(file, info.Size(), runtime.GOARCH)
}

// machines maps GOARCH to the machine its libraries are made for. An
// architecture that is missing here is left to the dynamic loader to judge.
var machines = map[string]elf.Machine{
	"amd64":   elf.EM_X86_64,
	"386":     elf.EM_386,
	"arm64":   elf.EM_AARCH64,
	"arm":     elf.EM_ARM,
	"riscv64": elf.EM_RISCV,
	"ppc64le": elf.EM_PPC64,
	"s390x":   elf.EM_S390,
	"loong64": elf.EM_LOONGARCH,
}

// headerSize is where e_machine ends, which is the same in all ELF files.
const headerSize = 20

// checkELF tells whether the size bytes of file can be a shared library for the
// architecture (a GOARCH).
func checkELF(file io.ReaderAt, size int64, goarch string) error {
	head := make([]byte, headerSize)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if n < headerSize || string(head[:len(elf.ELFMAG)]) != elf.ELFMAG {
		return errors.New("is not a shared library (no ELF header); lib_path must name a compiled .so file")
	}
	// e_type and e_machine, read by hand because elf.NewFile refuses a file for
	// a foreign machine only later and for other reasons.
	order := func(b []byte) uint16 { return uint16(b[0]) | uint16(b[1])<<8 }
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = func(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
	}
	kind, machine := elf.Type(order(head[16:])), elf.Machine(order(head[18:]))
	if want, known := machines[goarch]; known && machine != want {
		return fmt.Errorf("is built for another architecture (%v, this server needs %v); rebuild it on or for %s",
			machine, want, goarch)
	}
	if kind != elf.ET_DYN {
		return fmt.Errorf("is an ELF file but not a shared library (%v, expected ET_DYN); link it with -shared", kind)
	}

	const damaged = "is damaged or incomplete; build or copy it again"
	parsed, err := elf.NewFile(file)
	if err != nil {
		return fmt.Errorf("%s: %w", damaged, err)
	}
	for _, segment := range parsed.Progs {
		if segment.Type == elf.PT_LOAD && (segment.Filesz > uint64(size) || segment.Off > uint64(size)-segment.Filesz) {
			return fmt.Errorf("%s: it has %d bytes and refers to bytes beyond", damaged, size)
		}
	}
	return nil
}
