// Package check checks whether a module keeps the rules of the module
// interface: it is what "external-server module check" runs, and a harness for
// go test. It may import module, host and cabi.
//
// A library or an executable is checked in processes of its own, so that
// whatever it does ends as a failed rule. In a program that checks libraries,
// host.RunIfHost must be called first in main or TestMain.
package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/cabi"
	"external-server/internal/module/host"
)

// Exchange is a status and the command that the module answers it with.
type Exchange struct {
	Status  string `json:"status"`
	Command string `json:"command"`
}

// Target is a module to check and what must be known about it.
type Target struct {
	// Name is its file or command.
	Name string
	// Open opens the module anew, in this process. Library and Command set what
	// is needed for theirs instead.
	Open func(ctx context.Context) (module.Module, error)
	// Output, if not nil, gets every line that the module's processes write.
	Output func(line string)
	// Env is added to the environment of the module's processes.
	Env []string
	// Number is the expected module number; 0: any.
	Number int32
	// Config is a configuration that must be accepted, without company_name and
	// car_name.
	Config []module.Pair
	// Status is a status that a device of the module may send; default "{}".
	Status string
	// Conversation are statuses whose commands are known, in order.
	Conversation []Exchange
	// Cycles is how often a context is made and destroyed; default 1000.
	Cycles int

	// open opens a module in a process. strict asks for the checks of memory that
	// only the host of a library can make. Output of the module goes to log.
	open func(ctx context.Context, env []string, strict bool, log *slog.Logger) (module.Module, error)
}

func (t Target) make(ctx context.Context, strict bool, log *slog.Logger) (module.Module, error) {
	if t.open == nil {
		return t.Open(ctx)
	}
	return t.open(ctx, append(os.Environ(), t.Env...), strict, log)
}

// Library returns the target for a shared library.
func Library(path string) Target {
	return Target{Name: path, open: func(ctx context.Context, env []string, strict bool, log *slog.Logger) (module.Module, error) {
		opts := host.ForLibrary(path, processOptions(log))
		opts.Env = env
		if strict {
			opts.Env = append(env, cabi.GuardEnv+"=1")
			if os.Getenv("LD_PRELOAD") == "" { // else it is a sanitizer, which does more
				// The C library's own guard: freed memory is overwritten, and what
				// was damaged is noticed when it is freed.
				opts.Env = append(opts.Env, "MALLOC_PERTURB_=165", "MALLOC_CHECK_=3", "LD_PRELOAD=libc_malloc_debug.so.0")
			}
		}
		return host.Open(ctx, opts)
	}}
}

// Command returns the target for an executable and its arguments.
func Command(command []string) Target {
	return Target{Name: strings.Join(command, " "), open: func(ctx context.Context, env []string, _ bool, log *slog.Logger) (module.Module, error) {
		opts := processOptions(log)
		opts.Env = env
		opts.Command = command
		return host.Open(ctx, opts)
	}}
}

// callTimeout is how long a module may take for one call before the check calls
// it stuck.
const callTimeout = 10 * time.Second

func processOptions(log *slog.Logger) host.Options {
	// One process per check: when it ends, that is the finding.
	return host.Options{Logger: log, CallTimeout: callTimeout, MaxRestarts: 1, BackoffMin: time.Hour, BackoffMax: time.Hour}
}

// Outcome of one rule.
type Outcome string

// Outcomes.
const (
	Pass    Outcome = "pass"
	Fail    Outcome = "fail"
	Skipped Outcome = "skipped" // it does not apply, or what it needs failed
)

// Finding is what was found about one rule.
type Finding struct {
	Rule    string        `json:"rule"` // MT-1 ...
	Text    string        `json:"text"` // what is required
	Spec    string        `json:"spec"` // rules of the interface it comes from
	Outcome Outcome       `json:"outcome"`
	Detail  string        `json:"detail,omitempty"` // what happened instead, or what was measured
	Took    time.Duration `json:"took_ns"`
}

// Report is the result of a check.
type Report struct {
	Module   string    `json:"module"`
	Number   int32     `json:"number"`
	Findings []Finding `json:"findings"`
	// Interrupted tells that the context of the check ended before it was through:
	// rules that are reported as skipped may be broken.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Failed tells how many rules are broken.
func (r Report) Failed() int {
	n := 0
	for _, f := range r.Findings {
		if f.Outcome == Fail {
			n++
		}
	}
	return n
}

// Cause says in one sentence why the module does not pass, "" when it does: the first
// broken rule and what happened instead, since later ones often follow from it.
func (r Report) Cause() string {
	var broken []string
	var first Finding
	for _, f := range r.Findings {
		if f.Outcome == Fail {
			if len(broken) == 0 {
				first = f
			}
			broken = append(broken, f.Rule)
		}
	}
	switch len(broken) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%s breaks %s: %s", r.Module, first.Rule, r.cause(first))
	}
	return fmt.Sprintf("%s breaks %d of %d rules (%s); %s: %s",
		r.Module, len(broken), len(r.Findings), strings.Join(broken, ", "), first.Rule, r.cause(first))
}

// cause is what happened, without the name of the module, on one line.
func (r Report) cause(f Finding) string {
	return strings.ReplaceAll(strings.TrimPrefix(f.Detail, fmt.Sprintf("module (%s): ", r.Module)), "\n", "; ")
}

// skip is the error of a rule that does not apply.
type skip string

func (s skip) Error() string { return string(s) }

// measured is the "error" of a rule that was kept, with something to tell.
type measured string

func (m measured) Error() string { return string(m) }

// rule is one check.
type rule struct {
	id, text, spec string
	check          func(ctx context.Context, c *checker) error
	needsContext   bool // of a car, made with the given configuration
}

// checker is the state of one check.
type checker struct {
	target     Target
	number     int32
	types      []uint32 // supported ones among 0 to 255
	deviceType uint32
	noContext  bool // init refuses the given configuration: what needs a context cannot be checked
}

// Run checks all rules, one after the other, each with a fresh module.
// progress, if not nil, is told of each as it is done.
func Run(ctx context.Context, target Target, progress func(Finding)) Report {
	return check(ctx, rules, target, progress)
}

func check(ctx context.Context, rules []rule, target Target, progress func(Finding)) Report {
	if target.Status == "" {
		target.Status = "{}"
	}
	if target.Cycles <= 0 {
		target.Cycles = 1000
	}
	c := &checker{target: target}
	report := Report{Module: target.Name}
	loads := true
	for _, r := range rules {
		f := Finding{Rule: r.id, Text: r.text, Spec: r.spec, Outcome: Pass}
		began := time.Now()
		var err error
		switch {
		case ctx.Err() != nil:
		case !loads:
			err = skip("the module cannot be opened")
		case c.noContext && r.needsContext:
			err = skip("init refuses the given configuration")
		default:
			err = r.check(ctx, c)
		}
		f.Took = time.Since(began)
		if ctx.Err() != nil { // whatever the rule has found out now is not the module's fault
			err, report.Interrupted = skip("interrupted"), true
		}
		var skipped skip
		var note measured
		switch {
		case err == nil:
		case errors.As(err, &skipped):
			f.Outcome, f.Detail = Skipped, skipped.Error()
		case errors.As(err, &note):
			f.Detail = note.Error()
		default:
			f.Outcome, f.Detail = Fail, err.Error()
		}
		var other wrongNumber
		if r.id == "MT-1" && f.Outcome == Fail && !errors.As(err, &other) {
			loads = false
		}
		report.Number = c.number
		report.Findings = append(report.Findings, f)
		if progress != nil {
			progress(f)
		}
	}
	return report
}

// subject is an open module under check.
type subject struct {
	module.Module
	c    *checker
	log  *violations
	poll atomic.Int64 // poll timeout of the last context, the same for all of a check
}

// with opens the module, runs check and adds what the process said and how it
// ended.
func (c *checker) with(ctx context.Context, strict bool, check func(s *subject) error) (err error) {
	log := &violations{output: c.target.Output}
	m, err := c.target.make(ctx, strict, slog.New(log))
	if err != nil {
		return err
	}
	s := &subject{Module: m, c: c, log: log}
	err = check(s)
	var note measured
	if err == nil || errors.As(err, &note) {
		if died := s.died(); died != nil {
			err = died
		}
	}
	closeErr := m.Close()
	// Close has waited for the last line of output.
	if found := log.drain(); len(found) > 0 {
		err = errors.New(strings.Join(found, "; "))
	}
	return errors.Join(err, closeErr)
}

// died tells why the process of the module ended, if it did.
func (s *subject) died() error {
	p, ok := s.Module.(*host.Module)
	if !ok {
		return nil
	}
	if state := p.State(); state.LastExit != "" {
		return fmt.Errorf("the module process ended: %s%s", state.LastExit, s.log.lastOutput())
	}
	return nil
}

// car opens a context.
func (s *subject) car(ctx context.Context, name string, poll time.Duration, extra ...module.Pair) (module.Instance, error) {
	if died := s.died(); died != nil {
		return nil, died
	}
	s.poll.Store(int64(poll))
	spec := module.InstanceSpec{Car: fleet.CarID{Company: "check", Car: name}, PollTimeout: poll, Config: []module.Pair{
		{Key: "company_name", Value: "check"}, {Key: "car_name", Value: name}}}
	spec.Config = append(append(spec.Config, s.c.target.Config...), extra...)
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	return s.Open(ctx, spec)
}

// device returns a device that the module supports.
func (s *subject) device(role string) fleet.Device {
	return fleet.Device{Module: s.c.number, Type: s.c.deviceType, Role: role, Name: "Device " + role}
}

// call bounds a call and says more about one that did not succeed.
func (s *subject) call(ctx context.Context, f func(ctx context.Context) error) error {
	if died := s.died(); died != nil {
		return died
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- f(ctx) }()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case err := <-result:
			return err
		case <-ticker.C:
			if died := s.died(); died != nil {
				return died // the check starts no other process
			}
		}
	}
}

// violations is a log handler that keeps what the host of a library found and
// the last lines of output.
type violations struct {
	output func(string)

	mu    sync.Mutex
	found []string
	last  string
}

const outputPrefix = "module output: "

func (v *violations) Enabled(context.Context, slog.Level) bool { return true }
func (v *violations) WithAttrs([]slog.Attr) slog.Handler       { return v }
func (v *violations) WithGroup(string) slog.Handler            { return v }

func (v *violations) Handle(_ context.Context, r slog.Record) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	line, isOutput := strings.CutPrefix(r.Message, outputPrefix)
	if text, ok := strings.CutPrefix(line, cabi.ViolationPrefix); isOutput && ok && len(v.found) < 10 {
		v.found = append(v.found, text)
	}
	if isOutput && v.output != nil {
		v.output(line)
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "last_output" {
			v.last = a.Value.String()
		}
		return true
	})
	return nil
}

func (v *violations) drain() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	found := v.found
	v.found = nil
	return found
}

func (v *violations) lastOutput() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.last == "" {
		return ""
	}
	return "; last output: " + v.last
}

// Probe opens the module once and returns its number and which of the device types 0
// to 255 it serves.
func (t Target) Probe(ctx context.Context) (number int32, types []uint32, err error) {
	log := &violations{output: t.Output}
	m, err := t.make(ctx, false, slog.New(log))
	if err != nil {
		return 0, nil, err
	}
	for kind := range uint32(256) {
		if m.Supports(kind) {
			types = append(types, kind)
		}
	}
	return m.Number(), types, m.Close()
}
