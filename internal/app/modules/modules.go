// Package modules makes the modules that the configuration names, each once, however
// many cars use it.
package modules

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/module"
	"external-server/internal/module/cabi"
	"external-server/internal/module/fleetapi"
	"external-server/internal/module/host"
)

// Options of New.
type Options struct {
	Logger *slog.Logger
	// BuiltinLogger is that of built-in modules; nil: Logger.
	BuiltinLogger *slog.Logger
	// API returns the embedded HTTP API, nil: none. It is called when a built-in module is
	// made; nil: there is none.
	API func() httpapi.API
	// Instead makes every module instead of what the configuration names; nil: as
	// configured.
	Instead func(config.Module) (module.Module, error)
	// DryRun: built-in modules have no effect.
	DryRun bool
	// Once: a module that could not be made is not tried again.
	Once bool
}

// Set is the modules of this process, each made once (MOD-4). Its methods may be called
// concurrently.
type Set struct {
	opts Options
	pool *fleetapi.Pool // shared by the built-in modules

	making chan struct{}    // capacity 1, before mu; full while a module is made or closed, which may take seconds
	failed map[string]error // what could not be made, by Key; nil: it is tried again

	mu     sync.Mutex               // never held for long: the link waits for it when a car is found
	made   map[string]module.Module // by Key
	origin map[string]config.Module // what each was made from first
}

// New returns a set without modules. The caller calls Close.
func New(opts Options) *Set {
	s := &Set{opts: opts, pool: fleetapi.NewPool(opts.Logger), making: make(chan struct{}, 1), made: make(map[string]module.Module), origin: make(map[string]config.Module)}
	if opts.API == nil {
		s.opts.API = func() httpapi.API { return nil }
	}
	if opts.Once {
		s.failed = make(map[string]error)
	}
	return s
}

// Key tells which configured modules are one module in the process. The
// module's own config is not part of it: it makes the context, not the module.
func Key(m config.Module) (string, error) {
	switch {
	case m.Builtin != "":
		return fmt.Sprintf("builtin %s\x00%s %d %s", m.Builtin, m.SpoolDirectory, m.SpoolMaxBytes, m.Answer), nil
	case len(m.Command) > 0:
		return "command " + strings.Join(m.Command, "\x00") + limits(m), nil
	}
	path, err := filepath.Abs(m.LibPath)
	if err != nil {
		return "", fmt.Errorf("%s: library %s: %w", m.KeyPath, m.LibPath, err)
	}
	if m.Isolation == config.IsolationNone {
		return "library " + path, nil
	}
	return "isolated library " + path + limits(m), nil
}

// limits is the part of the key that a process of its own is run with: cars that
// differ in it cannot share one.
func limits(m config.Module) string {
	return fmt.Sprintf("\x00%d %d %v", m.MemoryLimit, m.MaxRestarts, m.CallTimeout)
}

// Module returns the module of the configuration, making it when it is the first
// to ask. ctx bounds the start. Errors name the key of the configuration, the module number and the
// library (CLI-12).
func (s *Set) Module(ctx context.Context, m config.Module) (module.Module, error) {
	key, err := Key(m)
	if err != nil {
		return nil, err
	}
	if made := s.find(key); made != nil {
		return made, checkNumber(made, m)
	}
	select {
	case s.making <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: another module is being started or ended: %w", m.KeyPath, context.Cause(ctx))
	}
	defer func() { <-s.making }()
	if made := s.find(key); made != nil { // another goroutine has made it meanwhile
		return made, checkNumber(made, m)
	}
	err, failed := s.failed[key]
	var made module.Module
	if !failed {
		made, err = s.make(ctx, m)
	}
	if err != nil {
		if s.failed != nil {
			s.failed[key] = err
		}
		return nil, fmt.Errorf("%s: %w", m.KeyPath, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[key], s.origin[key] = made, m
	return made, nil
}

// find returns a module that was made, or nil.
func (s *Set) find(key string) module.Module {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made[key]
}

// checkNumber tells whether a module that was made for one key is what another
// one asks for.
func checkNumber(made module.Module, m config.Module) error {
	if made.Number() == m.Number {
		return nil
	}
	return fmt.Errorf("%s: library %s is configured as module %d and reports number %d; correct the key or the lib_path",
		m.KeyPath, m.LibPath, m.Number, made.Number())
}

// Open creates the context of one car. found says that the car was found by "*":
// its contexts are created with their first call, but for built-in modules that
// are made without waiting and then need no goroutine to wait for commands.
func (s *Set) Open(ctx context.Context, id fleet.CarID, m config.Module, found bool, position []byte) (car.Binding, error) {
	made, err := s.Module(ctx, m)
	if err != nil {
		return car.Binding{}, err
	}
	spec := m.Spec(id)
	spec.Position = position
	if found && (m.Builtin == "" || m.SpoolDirectory != "") {
		return car.Binding{Module: made, Instance: module.Lazy(made, spec), Awaited: m.Answer == config.AnswerDelivered}, nil
	}
	instance, err := made.Open(ctx, spec)
	if err != nil {
		return car.Binding{}, fmt.Errorf("%s: %w", m.KeyPath, err)
	}
	return car.Binding{Module: made, Instance: instance, Awaited: m.Answer == config.AnswerDelivered}, nil
}

// make makes a module of the configured kind.
func (s *Set) make(ctx context.Context, m config.Module) (module.Module, error) {
	if s.opts.Instead != nil {
		return s.opts.Instead(m)
	}
	opts := host.Options{
		Expect:      m.Number,
		MemoryLimit: m.MemoryLimit,
		MaxRestarts: m.MaxRestarts,
		CallTimeout: m.CallTimeout,
		Logger:      s.opts.Logger,
	}
	switch {
	case m.Builtin != "":
		return fleetapi.New(fleetapi.Options{
			Builtin:        string(m.Builtin),
			Pool:           s.pool,
			API:            s.opts.API(),
			Logger:         cmp.Or(s.opts.BuiltinLogger, s.opts.Logger),
			SpoolDirectory: m.SpoolDirectory,
			SpoolMaxBytes:  m.SpoolMaxBytes,
			Await:          m.Answer == config.AnswerDelivered,
			DryRun:         s.opts.DryRun,
		})
	case len(m.Command) > 0:
		opts.Command = m.Command
		opts.Name = strings.Join(m.Command, " ")
	case m.Isolation == config.IsolationNone:
		return cabi.Open(m.LibPath, cabi.Options{Expect: m.Number, Logger: s.opts.Logger, Prime: true})
	default:
		opts = host.ForLibrary(m.LibPath, opts)
	}
	return host.Open(ctx, opts)
}

// Processes tells how the modules that run in processes of their own are.
func (s *Set) Processes() []module.ProcessState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []module.ProcessState
	for _, made := range s.made {
		if m, ok := made.(*host.Module); ok {
			out = append(out, m.State())
		}
	}
	slices.SortFunc(out, func(a, b module.ProcessState) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Spools tells what is wrong with the spools of the built-in modules, "" for nothing, and
// whether there are any.
func (s *Set) Spools() (fault string, used bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failing int
	var first string
	for key, made := range s.made {
		m, ok := made.(*fleetapi.Module)
		if !ok || s.origin[key].SpoolDirectory == "" {
			continue
		}
		used = true
		if n, car, err := m.SpoolFault(); n > 0 {
			failing += n
			if text := fmt.Sprintf("module %d, car %s: %v", m.Number(), car, err); first == "" || text < first {
				first = text
			}
		}
	}
	if failing == 0 {
		return "", used
	}
	return fmt.Sprintf("statuses of %d cars and modules are kept in memory only; %s", failing, first), used
}

// CloseUnused closes the modules that no car of the configuration uses.
func (s *Set) CloseUnused(cfg *config.Config) error {
	used := make(map[string]bool)
	mark := func(modules []config.Module) {
		for _, m := range modules {
			if key, err := Key(m); err == nil {
				used[key] = true
			}
		}
	}
	for _, c := range cfg.Cars {
		mark(c.Modules)
	}
	if cfg.AnyCar != nil {
		mark(cfg.AnyCar.Modules)
	}
	return s.closeWhere(func(key string) bool { return !used[key] })
}

// Close closes all modules; their instances were closed before.
func (s *Set) Close() error {
	err := s.closeWhere(func(string) bool { return true })
	s.pool.Close()
	return err
}

func (s *Set) closeWhere(which func(key string) bool) error {
	s.making <- struct{}{} // what is made again waits for the end of its predecessor
	defer func() { <-s.making }()
	var closing []module.Module
	s.mu.Lock()
	for key, made := range s.made {
		if which(key) {
			delete(s.made, key)
			delete(s.origin, key)
			closing = append(closing, made)
		}
	}
	s.mu.Unlock()
	// Side by side: a process that does not end costs a second.
	errs := make([]error, len(closing))
	var all sync.WaitGroup
	for n, made := range closing {
		all.Go(func() { errs[n] = made.Close() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Retire says that the server stops, before the contexts are closed.
func (s *Set) Retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, made := range s.made {
		if m, ok := made.(*host.Module); ok {
			m.Retire()
		}
	}
}
