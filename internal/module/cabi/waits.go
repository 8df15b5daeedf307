//go:build cgo

package cabi

/*
#include "shim.h"
*/
import "C"

import (
	"encoding/binary"
	"io"
	"os"
	"sync"
	"syscall"
)

// waits are the calls of wait_for_command that are under way, each on a thread in C. A
// goroutine that waits in C holds up others until the runtime has noticed: ten thousand
// that begin together, when all cars connect, took half a minute. The threads say what was
// answered in a pipe; one goroutine per library reads it while there is any.
type waits struct {
	mu     sync.Mutex
	under  map[uint64]chan<- C.int
	last   uint64
	read   *os.File // nil: there is no pipe
	write  int
	closed bool
}

// waited is what a thread writes: a number and a result, in the order of this machine.
const waited = 16

// begin starts a wait and returns a channel that gets its result, once. Without thread it
// returns nil: the caller has to wait itself.
func (w *waits) begin(i *instance, timeout C.int, held C.int) <-chan C.int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || !w.open() {
		return nil
	}
	w.last++
	if C.cabi_start_wait(i.lib.table, i.context, timeout, held, i.poll, C.int(w.write), C.ulonglong(w.last)) != 0 {
		return nil // out of threads
	}
	result := make(chan C.int, 1)
	w.under[w.last] = result
	if len(w.under) == 1 {
		go w.receive(w.read) // until no wait is under way
	}
	return result
}

// open makes the pipe; mu is held.
func (w *waits) open() bool {
	if w.read != nil {
		return true
	}
	var ends [2]int
	if syscall.Pipe2(ends[:], syscall.O_CLOEXEC) != nil {
		return false
	}
	_ = syscall.SetNonblock(ends[0], true) // so that reading it takes no thread
	w.read, w.write = os.NewFile(uintptr(ends[0]), "waits"), ends[1]
	if w.under == nil {
		w.under = make(map[uint64]chan<- C.int)
	}
	return true
}

func (w *waits) receive(pipe *os.File) {
	buf := make([]byte, 256*waited)
	n := 0
	for {
		more, err := io.ReadAtLeast(pipe, buf[n:], 1)
		if err != nil {
			return // it cannot be: both ends are ours
		}
		n += more
		at := 0
		for ; n-at >= waited; at += waited {
			if w.done(binary.NativeEndian.Uint64(buf[at:]), C.int(int64(binary.NativeEndian.Uint64(buf[at+8:])))) {
				return // and nothing is left to read
			}
		}
		n = copy(buf, buf[at:n])
	}
}

// done passes a result on; it tells whether no wait is left.
func (w *waits) done(id uint64, code C.int) (last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.under[id] <- code
	delete(w.under, id)
	if len(w.under) > 0 {
		return false
	}
	w.tidy()
	return true
}

// tidy closes the pipe of a library that is closed; mu is held.
func (w *waits) tidy() {
	if w.closed && len(w.under) == 0 && w.read != nil {
		_ = w.read.Close()
		_ = syscall.Close(w.write)
		w.read = nil
	}
}

// close ends the use, once the waits that are still under way have come back.
func (w *waits) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.tidy()
}
