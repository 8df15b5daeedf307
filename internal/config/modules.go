package config

import (
	"math"
	"strconv"
	"strings"
	"time"

	"external-server/internal/config/document"
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
func (l *loader) modules(n *document.Value, path string, format Format) modules {
	o := l.Object(n, path)
	if o == nil {
		return modules{}
	}
	out := modules{list: make([]Module, 0, len(n.Members)), offs: make([]int, 0, len(n.Members))}
	for i := range n.Members {
		m := &n.Members[i]
		key := o.Key(m.Key)
		number, ok := moduleNumber(m.Key)
		if !ok {
			l.Errorf(m.Off, key, "expected a module number as the key, digits only and at most %d", math.MaxInt32)
			continue
		}
		if at := out.find(number); at >= 0 {
			l.Errorf(m.Off, key, "the same module number as %s; remove one (DEF-55)", out.list[at].KeyPath)
			l.module(&m.Value, key, number, format) // for its own errors
			continue
		}
		if number == 0 {
			l.Warnf(m.Off, key, "module number 0 is reserved (VOC-7)")
		}
		out.list = append(out.list, l.module(&m.Value, key, number, format))
		out.offs = append(out.offs, m.Off)
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

func (l *loader) module(n *document.Value, path string, number int32, format Format) Module {
	m := Module{Number: number, KeyPath: path}
	o := l.Object(n, path)
	if o == nil {
		return m
	}
	l.moduleKind(o, &m)
	l.answer(o, &m)
	if own := o.Get("config"); own != nil {
		m.Config = l.moduleConfig(own, o.Key("config"), format)
	}
	m.PollTimeout = time.Duration(o.Integer("timeout_ms", defaultPollTimeout.Milliseconds(), 1, math.MaxInt32)) * time.Millisecond
	m.SpoolDirectory = o.Str("spool_directory", "")
	m.SpoolMaxBytes = o.Integer("spool_max_bytes", defaultSpoolMaxBytes, 1, document.MaxInteger)
	const mb = 1 << 20
	m.MemoryLimit = o.Integer("memory_limit_mb", 0, 0, document.MaxInteger/mb) * mb
	m.MaxRestarts = int(o.Integer("max_restarts", defaultMaxRestarts, 0, math.MaxInt32))
	m.CallTimeout = o.Duration("call_timeout_ms", time.Millisecond, defaultCallTimeout, leastTimeout)
	if m.SpoolDirectory != "" && m.Builtin != "" {
		if fault := l.files.Directory(m.SpoolDirectory); fault != "" {
			l.Errorf(o.Value.Member("spool_directory").Off, o.Key("spool_directory"), "%s", fault)
		}
	}
	if m.Builtin != "" {
		o.Without("a built-in module", "isolation", "memory_limit_mb", "max_restarts", "call_timeout_ms")
	} else {
		o.Without("a library or command", "spool_directory", "spool_max_bytes")
	}
	o.Finish()
	return m
}

// moduleKind reads the one key that says what the module is.
func (l *loader) moduleKind(o *document.Object, m *Module) {
	lib, builtin, command := o.Get("lib_path"), o.Get("builtin"), o.Get("command")
	isolation := o.Get("isolation")
	given := 0
	for _, n := range []*document.Value{lib, builtin, command} {
		if n != nil {
			given++
		}
	}
	switch {
	case given == 0:
		l.Errorf(o.Value.Off, o.Key("lib_path"), "required, but missing; expected the path of the module library (or builtin, or command)")
		return
	case given > 1:
		l.Errorf(o.Value.Off, o.Path, "expected exactly one of lib_path, builtin and command")
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
	switch v := Isolation(isolation.Text); {
	case isolation.Kind != document.KindString, v != IsolationProcess && v != IsolationNone:
		l.Errorf(isolation.Off, o.Key("isolation"), `expected "process" or "none"`)
	default:
		m.Isolation = v
	}
}

func (l *loader) answer(o *document.Object, m *Module) {
	m.Answer = AnswerQueued
	n := o.Get("answer")
	if n == nil {
		return
	}
	switch v := Answer(n.Text); {
	case n.Kind != document.KindString, v != AnswerQueued && v != AnswerDelivered:
		l.Errorf(n.Off, o.Key("answer"), `expected "queued" or "delivered"`)
	default:
		m.Answer = v
	}
}

func (l *loader) library(o *document.Object, m *Module, n *document.Value) {
	if n.Kind != document.KindString || n.Text == "" {
		l.Errorf(n.Off, o.Key("lib_path"), "expected the path of the module library")
		return
	}
	m.LibPath = n.Text
	if fault := l.files.Library(n.Text); fault != "" {
		l.Errorf(n.Off, o.Key("lib_path"), "%s", fault)
	}
}

func (l *loader) builtin(o *document.Object, m *Module, n *document.Value) {
	b := Builtin(n.Text)
	switch {
	case n.Kind != document.KindString, b.Number() == 0:
		l.Errorf(n.Off, o.Key("builtin"), `expected "mission", "io" or "transparent"`)
	case b.Number() != m.Number:
		l.Errorf(n.Off, o.Key("builtin"), "the built-in module %s has number %d, but its key is %d", b, b.Number(), m.Number)
	default:
		m.Builtin = b
	}
}

func (l *loader) command(o *document.Object, m *Module, n *document.Value) {
	key := o.Key("command")
	const what = `an array of strings, the executable and its arguments`
	if n.Kind != document.KindArray {
		l.Wrong(n, key, what)
		return
	}
	for i := range n.Items {
		if n.Items[i].Kind != document.KindString {
			l.Wrong(&n.Items[i], key, what)
			return
		}
		m.Command = append(m.Command, n.Items[i].Text)
	}
	if len(m.Command) == 0 || m.Command[0] == "" {
		l.Errorf(n.Off, key, "must not be empty; expected %s", what)
		return
	}
	if fault := l.files.Executable(m.Command[0]); fault != "" {
		l.Errorf(n.Items[0].Off, key, "%s", fault)
	}
}

// moduleConfig reads the module's own pairs in file order (MOD-8, MOD-9).
// Errors name keys and never values (DEF-45).
func (l *loader) moduleConfig(n *document.Value, path string, format Format) []Pair {
	o := l.Object(n, path)
	if o == nil {
		return nil
	}
	pairs := make([]Pair, 0, len(n.Members))
	for i := range n.Members {
		m := &n.Members[i]
		if format == FormatA && (m.Key == "company_name" || m.Key == "car_name") {
			l.Errorf(m.Off, o.Key(m.Key), "must not be in the config of a module: the server adds it (CFG-4)")
			continue
		}
		value, ok := pairValue(&m.Value)
		if !ok {
			got := m.Value.Kind.String()
			if m.Value.Kind == document.KindNumber {
				got = "a fraction or a number too large"
			}
			l.Errorf(m.Value.Off, o.Key(m.Key), "expected a string, a whole number, true or false, got %s (MOD-9)", got)
			continue
		}
		l.converted = l.converted || m.Value.Kind != document.KindString
		pairs = append(pairs, Pair{Key: m.Key, Value: NewSecret(value)})
	}
	return pairs
}

// pairValue returns the text a module gets for a value (MOD-9).
func pairValue(n *document.Value) (string, bool) {
	switch n.Kind {
	case document.KindString:
		return n.Text, true
	case document.KindBool:
		if n.Text == "true" {
			return "1", true
		}
		return "0", true
	case document.KindNumber:
		if n.Text == "-0" {
			return "0", true
		}
		if !strings.ContainsAny(n.Text, ".eE") {
			return n.Text, true // of any size, as in the reference
		}
		v, err := strconv.ParseFloat(n.Text, 64)
		if err != nil || v != math.Trunc(v) {
			return "", false
		}
		return strconv.FormatFloat(v+0, 'f', -1, 64), true // +0 turns -0 into 0
	}
	return "", false
}
