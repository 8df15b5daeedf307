//go:build cgo

package cabi

/*
#cgo CFLAGS: -std=gnu11 -Wall -Wextra -Wno-unused-parameter -I${SRCDIR}/../../../modules/include
#cgo linux LDFLAGS: -ldl

#cgo noescape cabi_call
#cgo nocallback cabi_call
#cgo noescape cabi_init
#cgo nocallback cabi_init
#cgo noescape cabi_take
#cgo nocallback cabi_take
#cgo nocallback cabi_wait
#cgo nocallback cabi_start_wait
#cgo nocallback cabi_pop

#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"external-server/internal/module"
)

// Available tells whether this program can load module libraries.
const Available = true

var _ module.Module = (*Library)(nil)

// Library is one loaded module library. It stays mapped until the process ends,
// also after Close: libraries leave threads behind (HTTP clients do), and
// unmapping the code under their feet is a crash.
type Library struct {
	path   string
	number int32
	table  *C.struct_cabi_library
	log    *slog.Logger

	prime bool // Options.Prime

	askMu sync.Mutex // held during the C call of Supports; Close does not need it

	supportsMu sync.Mutex // never held during a C call
	supports   map[uint32]bool

	primers primers
	waits   waits
	made    atomic.Uint32 // contexts

	mu     sync.Mutex // never held during a C call
	open   int        // contexts that are neither closed nor given up
	closed bool
}

// Open loads the library at path (relative to the working directory), checks
// that all thirteen functions of the ABI are there and, with Expect, that the
// library reports the configured module number (MOD-10). Errors name the path,
// the cause and what to do about it.
func Open(path string, opts Options) (*Library, error) {
	fail := func(err error) (*Library, error) {
		return nil, &module.OpenError{Where: fmt.Sprintf("module library %q", path), Err: err}
	}
	if err := checkFile(path); err != nil {
		return fail(err)
	}
	// A name without a slash would make the loader search system directories.
	absolute, err := filepath.Abs(path)
	if err != nil {
		return fail(err)
	}
	table, err := load(absolute)
	if err != nil {
		return fail(err)
	}
	number := int32(C.cabi_number(table))
	if opts.Expect != 0 && number != opts.Expect {
		return fail(fmt.Errorf("reports module number %d but is configured as module %d; "+
			"correct the number that is its key or the lib_path", number, opts.Expect))
	}
	return &Library{
		path:     path,
		number:   number,
		table:    table,
		log:      opts.logger().With("module", number),
		supports: map[uint32]bool{},
		prime:    opts.Prime,
	}, nil
}

// load runs the dynamic loader and names what it misses.
func load(path string) (*C.struct_cabi_library, error) {
	cPath := C.CString(path)
	defer C.free(unsafe.Pointer(cPath))
	var missing C.uint
	var words [1024]C.char
	table := C.cabi_load(cPath, &missing, &words[0], C.size_t(len(words)))
	if table != nil {
		return table, nil
	}
	if text := C.GoString(&words[0]); text != "" {
		return nil, fmt.Errorf("cannot be loaded: %s; a library it depends on may be missing "+
			"(ldd shows which) or it was linked without one", text)
	}
	var names []string
	for i, name := range symbols {
		if missing&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return nil, fmt.Errorf("lacks the function %s; it is no module for this server, or they are not "+
		"exported as extern \"C\" with default visibility", strings.Join(names, ", "))
}

// HoldsPolls implements module.HoldingModule.
func (l *Library) HoldsPolls() bool { return true }

// Number returns what get_module_number answered when the library was loaded.
func (l *Library) Number() int32 { return l.number }

// Supports asks is_device_type_supported and remembers the answer.
func (l *Library) Supports(deviceType uint32) bool {
	if answer, known := l.Recall(deviceType); known {
		return answer
	}
	l.askMu.Lock()
	defer l.askMu.Unlock()
	if answer, known := l.Recall(deviceType); known { // by who asked meanwhile
		return answer
	}
	if l.isClosed() {
		return false
	}
	answer := C.cabi_supported(l.table, C.uint(deviceType)) == module.CodeOK
	l.supportsMu.Lock()
	defer l.supportsMu.Unlock()
	if len(l.supports) < module.MaxRecalled {
		l.supports[deviceType] = answer
	}
	return answer
}

// Recall implements module.Recaller: it never waits for the library.
func (l *Library) Recall(deviceType uint32) (supported, known bool) {
	l.supportsMu.Lock()
	defer l.supportsMu.Unlock()
	supported, known = l.supports[deviceType]
	return supported, known
}

func (l *Library) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Open calls init with the pairs of spec, in their order. When ctx ends before
// the library comes back, it returns module.ErrStuck; a context that is made
// later after all is destroyed in the background.
func (l *Library) Open(ctx context.Context, spec module.InstanceSpec) (module.Instance, error) {
	fail := func(err error) (module.Instance, error) {
		return nil, &module.OpenError{Where: fmt.Sprintf("module %d (%s), car %s", l.number, l.path, spec.Car), Err: err}
	}
	if err := ctx.Err(); err != nil {
		return fail(fmt.Errorf("init not called: %w", err))
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return fail(ErrClosed)
	}
	l.open++
	l.mu.Unlock()

	made := make(chan C.uintptr_t, 1)
	go func() { made <- l.init(spec.Config) }()
	select {
	case context := <-made:
		if context == 0 {
			l.leave()
			return fail(errors.New("init failed (it returned NULL); check the module's \"config\" " +
				"and what the module printed"))
		}
		i := newInstance(l, context, spec)
		if l.prime {
			l.primers.add(i)
		}
		return i, nil
	case <-ctx.Done():
		go func() {
			// Without an owner on purpose: nothing can end a call inside C.
			if context := <-made; context != 0 && !l.isClosed() {
				C.cabi_destroy(l.table, context)
			}
			l.leave()
		}()
		return fail(fmt.Errorf("init: %w (%w)", module.ErrStuck, ctx.Err()))
	}
}

// init hands the pairs to the library. The bytes are cleared afterwards: some of
// them are secrets.
func (l *Library) init(config []module.Pair) C.uintptr_t {
	var bytes []byte
	sizes := make([]C.size_t, 0, 2*len(config))
	for _, pair := range config {
		bytes = append(append(bytes, pair.Key...), pair.Value...)
		sizes = append(sizes, C.size_t(len(pair.Key)), C.size_t(len(pair.Value)))
	}
	defer clear(bytes)
	return C.cabi_init(l.table, C.size_t(len(config)), (*C.uchar)(unsafe.SliceData(bytes)), unsafe.SliceData(sizes))
}

// leave counts a context that is closed or given up.
func (l *Library) leave() {
	l.mu.Lock()
	l.open--
	l.mu.Unlock()
}

// Close ends the use of the library. It fails while contexts are open and may
// then be called again.
func (l *Library) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open > 0 {
		return fmt.Errorf("module %d (%s): %d contexts are still open; close them first", l.number, l.path, l.open)
	}
	l.closed = true
	l.waits.close()
	return nil
}
