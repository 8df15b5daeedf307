//go:build cgo

package cabi

/*
#include "shim.h"
*/
import "C"

import (
	"runtime"
	"sync"
	"time"

	"external-server/internal/module"
)

// How many first waits of one library are made at a time: fewPrimers, and one more each
// time that one takes longer than slowPrime, up to maxPrimers. Known libraries wait for
// 5 to 30 s whatever the timeout (MOD-15); the others are done at once, and need not
// compete with the start of the server.
const (
	fewPrimers = 4
	maxPrimers = 256
	slowPrime  = 20 * time.Millisecond
	// primeAfter lets the answer of init leave first: a library that ends its process in
	// its first wait is then one that failed while it ran, not one that cannot start.
	primeAfter = 100 * time.Millisecond
)

// primers make the first wait_for_command of contexts, see Options.Prime. What it
// says does not matter: commands stay in the library. The goroutines are owned by
// no one on purpose: nothing can end a call inside C.
type primers struct {
	mu      sync.Mutex
	waiting []*instance
	running int
}

func (p *primers) add(i *instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, i)
	if p.running < fewPrimers {
		p.running++
		time.AfterFunc(primeAfter, p.run)
	}
}

// grow is called while a wait takes long.
func (p *primers) grow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) > 0 && p.running < maxPrimers {
		p.running++
		go p.run()
	}
}

func (p *primers) run() {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	for i := p.next(); i != nil; i = p.next() {
		slow := time.AfterFunc(slowPrime, p.grow)
		i.prime()
		slow.Stop()
	}
}

// next returns nil when the goroutine has to end.
func (p *primers) next() *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.waiting)
	if n == 0 {
		p.waiting = nil
		p.running--
		return nil
	}
	i := p.waiting[n-1]
	p.waiting[n-1] = nil
	p.waiting = p.waiting[:n-1]
	return i
}

// prime makes the first wait, unless a poll has begun or the context is being closed.
func (i *instance) prime() {
	if i.polled.Load() || !i.gate.Try(module.Waiting, opNames[opWait]) {
		return
	}
	defer i.gate.Leave(module.Waiting)
	if !i.polled.Swap(true) {
		C.cabi_wait(i.lib.table, i.context, min(i.pollTimeout, milliseconds(module.BriefWait)))
	}
}
