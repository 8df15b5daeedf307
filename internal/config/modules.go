package config

import (
	"math"
	"strconv"
	"strings"
	"time"

	"external-server/internal/module/spool"
)

// Defaults of a module.
const (
	defaultPollTimeout   = time.Second // MOD-16
	defaultSpoolMaxBytes = spool.DefaultMaxBytes
	defaultMaxRestarts   = 10
	// defaultCallTimeout leaves room for libraries that wait up to 30 s for
	// their HTTP requests (MOD-15, MM-3).
	defaultCallTimeout = 60 * time.Second
)

// Number returns the module number of a built-in module, or 0.
func (b Builtin) Number() int32 {
	switch b {
	case BuiltinMission:
		return 1
	case BuiltinIO:
		return 2
	case BuiltinTransparent:
		return 3
	}
	return 0
}

// modules are the modules of one object of the file and where they stand.
type modules struct {
	list []Module
	offs []int // of the keys
}

// find returns the index of number, or -1.
func (m modules) find(number int32) int {
	for i := range m.list {
		if m.list[i].Number == number {
			return i
		}
	}
	return -1
}

// modules reads an object of modules in file order. reserved keys in their own
// config are errors in format A (CFG-4), replacements elsewhere (MOD-8).
func (l *loader) modules(n *node, path string, format Format) modules {
	o := l.object(n, path)
	if o == nil {
		return modules{}
	}
	out := modules{list: make([]Module, 0, len(n.members)), offs: make([]int, 0, len(n.members))}
	for i := range n.members {
		m := &n.members[i]
		key := o.key(m.key)
		number, ok := moduleNumber(m.key)
		if !ok {
			l.errorf(m.off, key, "expected a module number as the key, digits only and at most %d", math.MaxInt32)
			continue
		}
		if at := out.find(number); at >= 0 {
			l.errorf(m.off, key, "the same module number as %s; remove one (DEF-55)", out.list[at].KeyPath)
			l.module(&m.value, key, number, format) // for its own errors
			continue
		}
		if number == 0 {
			l.warnf(m.off, key, "module number 0 is reserved (VOC-7)")
		}
		out.list = append(out.list, l.module(&m.value, key, number, format))
		out.offs = append(out.offs, m.off)
	}
	return out
}

func moduleNumber(key string) (int32, bool) {
	if key == "" || strings.Trim(key, "0123456789") != "" {
		return 0, false
	}
	v, err := strconv.ParseInt(key, 10, 32)
	return int32(v), err == nil
}

func (l *loader) module(n *node, path string, number int32, format Format) Module {
	m := Module{Number: number, KeyPath: path}
	o := l.object(n, path)
	if o == nil {
		return m
	}
	l.moduleKind(o, &m)
	l.answer(o, &m)
	if own := o.get("config"); own != nil {
		m.Config = l.moduleConfig(own, o.key("config"), format)
	}
	m.PollTimeout = time.Duration(o.integer("timeout_ms", defaultPollTimeout.Milliseconds(), 1, math.MaxInt32)) * time.Millisecond
	m.SpoolDirectory = o.str("spool_directory", "")
	m.SpoolMaxBytes = o.integer("spool_max_bytes", defaultSpoolMaxBytes, 1, maxInteger)
	const mb = 1 << 20
	m.MemoryLimit = o.integer("memory_limit_mb", 0, 0, maxInteger/mb) * mb
	m.MaxRestarts = int(o.integer("max_restarts", defaultMaxRestarts, 0, math.MaxInt32))
	m.CallTimeout = o.duration("call_timeout_ms", time.Millisecond, defaultCallTimeout, leastTimeout)
	if m.SpoolDirectory != "" && m.Builtin != "" {
		if fault := l.files.directory(m.SpoolDirectory); fault != "" {
			l.errorf(o.n.member("spool_directory").off, o.key("spool_directory"), "%s", fault)
		}
	}
	if m.Builtin != "" {
		o.without("a built-in module", "isolation", "memory_limit_mb", "max_restarts", "call_timeout_ms")
	} else {
		o.without("a library or command", "spool_directory", "spool_max_bytes")
	}
	o.finish()
	return m
}

// without warns about keys that have no effect on this kind of module.
func (o *object) without(what string, keys ...string) {
	for _, key := range keys {
		if o.has(key) {
			o.l.warnf(o.offset(key), o.key(key), "has no effect on %s", what)
		}
	}
}

// moduleKind reads the one key that says what the module is.
func (l *loader) moduleKind(o *object, m *Module) {
	lib, builtin, command := o.get("lib_path"), o.get("builtin"), o.get("command")
	isolation := o.get("isolation")
	given := 0
	for _, n := range []*node{lib, builtin, command} {
		if n != nil {
			given++
		}
	}
	switch {
	case given == 0:
		l.errorf(o.n.off, o.key("lib_path"), "required, but missing; expected the path of the module library (or builtin, or command)")
		return
	case given > 1:
		l.errorf(o.n.off, o.path, "expected exactly one of lib_path, builtin and command")
		return
	case lib != nil:
		l.library(o, m, lib)
	case builtin != nil:
		l.builtin(o, m, builtin)
	default:
		l.command(o, m, command)
	}
	if lib == nil {
		return
	}
	m.Isolation = IsolationProcess
	if isolation == nil {
		return
	}
	switch v := Isolation(isolation.text); {
	case isolation.kind != kindString, v != IsolationProcess && v != IsolationNone:
		l.errorf(isolation.off, o.key("isolation"), `expected "process" or "none"`)
	default:
		m.Isolation = v
	}
}

func (l *loader) answer(o *object, m *Module) {
	m.Answer = AnswerQueued
	n := o.get("answer")
	if n == nil {
		return
	}
	switch v := Answer(n.text); {
	case n.kind != kindString, v != AnswerQueued && v != AnswerDelivered:
		l.errorf(n.off, o.key("answer"), `expected "queued" or "delivered"`)
	default:
		m.Answer = v
	}
}

func (l *loader) library(o *object, m *Module, n *node) {
	if n.kind != kindString || n.text == "" {
		l.errorf(n.off, o.key("lib_path"), "expected the path of the module library")
		return
	}
	m.LibPath = n.text
	if fault := l.files.library(n.text); fault != "" {
		l.errorf(n.off, o.key("lib_path"), "%s", fault)
	}
}

func (l *loader) builtin(o *object, m *Module, n *node) {
	b := Builtin(n.text)
	switch {
	case n.kind != kindString, b.Number() == 0:
		l.errorf(n.off, o.key("builtin"), `expected "mission", "io" or "transparent"`)
	case b.Number() != m.Number:
		l.errorf(n.off, o.key("builtin"), "the built-in module %s has number %d, but its key is %d", b, b.Number(), m.Number)
	default:
		m.Builtin = b
	}
}

func (l *loader) command(o *object, m *Module, n *node) {
	key := o.key("command")
	const what = `an array of strings, the executable and its arguments`
	if n.kind != kindArray {
		l.wrong(n, key, what)
		return
	}
	for i := range n.items {
		if n.items[i].kind != kindString {
			l.wrong(&n.items[i], key, what)
			return
		}
		m.Command = append(m.Command, n.items[i].text)
	}
	if len(m.Command) == 0 || m.Command[0] == "" {
		l.errorf(n.off, key, "must not be empty; expected %s", what)
		return
	}
	if fault := l.files.executable(m.Command[0]); fault != "" {
		l.errorf(n.items[0].off, key, "%s", fault)
	}
}

// moduleConfig reads the module's own pairs in file order (MOD-8, MOD-9).
// Errors name keys and never values (DEF-45).
func (l *loader) moduleConfig(n *node, path string, format Format) []Pair {
	o := l.object(n, path)
	if o == nil {
		return nil
	}
	pairs := make([]Pair, 0, len(n.members))
	for i := range n.members {
		m := &n.members[i]
		if format == FormatA && (m.key == "company_name" || m.key == "car_name") {
			l.errorf(m.off, o.key(m.key), "must not be in the config of a module: the server adds it (CFG-4)")
			continue
		}
		value, ok := pairValue(&m.value)
		if !ok {
			got := m.value.kind.String()
			if m.value.kind == kindNumber {
				got = "a fraction or a number too large"
			}
			l.errorf(m.value.off, o.key(m.key), "expected a string, a whole number, true or false, got %s (MOD-9)", got)
			continue
		}
		l.converted = l.converted || m.value.kind != kindString
		pairs = append(pairs, Pair{Key: m.key, Value: NewSecret(value)})
	}
	return pairs
}

// pairValue returns the text a module gets for a value (MOD-9).
func pairValue(n *node) (string, bool) {
	switch n.kind {
	case kindString:
		return n.text, true
	case kindBool:
		if n.text == "true" {
			return "1", true
		}
		return "0", true
	case kindNumber:
		if n.text == "-0" {
			return "0", true
		}
		if !strings.ContainsAny(n.text, ".eE") {
			return n.text, true // of any size, as in the reference
		}
		v, err := strconv.ParseFloat(n.text, 64)
		if err != nil || v != math.Trunc(v) {
			return "", false
		}
		return strconv.FormatFloat(v+0, 'f', -1, 64), true // +0 turns -0 into 0
	}
	return "", false
}
