package app

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

// libraries makes each module once, however many cars use it (MOD-4).
type libraries struct {
	log  *slog.Logger
	api  httpapi.API    // the embedded HTTP API, nil: none
	pool *fleetapi.Pool // shared by the built-in modules

	instead    func(config.Module) (module.Module, error) // see Options.Module
	builtinLog *slog.Logger                               // of built-in modules; nil: log
	dryRun     bool                                       // built-in modules have no effect, see Check

	making chan struct{}    // capacity 1, before mu; full while a module is made or closed, which may take seconds
	failed map[string]error // what could not be made, by moduleKey; nil: it is tried again

	mu     sync.Mutex               // never held for long: the link waits for it when a car is found
	made   map[string]module.Module // by moduleKey
	origin map[string]config.Module // what each was made from first
}

func newLibraries(log *slog.Logger) *libraries {
	return &libraries{log: log, pool: fleetapi.NewPool(log), making: make(chan struct{}, 1), made: make(map[string]module.Module), origin: make(map[string]config.Module)}
}

// moduleKey tells which configured modules are one module in the process. The
// module's own config is not part of it: it makes the context, not the module.
func moduleKey(m config.Module) (string, error) {
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

// module returns the module of the configuration, making it when it is the first
// to ask. ctx bounds the start. Errors name the key of the configuration, the module number and the
// library (CLI-12).
func (l *libraries) module(ctx context.Context, m config.Module) (module.Module, error) {
	key, err := moduleKey(m)
	if err != nil {
		return nil, err
	}
	if made := l.find(key); made != nil {
		return made, checkNumber(made, m)
	}
	select {
	case l.making <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: another module is being started or ended: %w", m.KeyPath, context.Cause(ctx))
	}
	defer func() { <-l.making }()
	if made := l.find(key); made != nil { // another goroutine has made it meanwhile
		return made, checkNumber(made, m)
	}
	err, failed := l.failed[key]
	var made module.Module
	if !failed {
		made, err = l.make(ctx, m)
	}
	if err != nil {
		if l.failed != nil {
			l.failed[key] = err
		}
		return nil, fmt.Errorf("%s: %w", m.KeyPath, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made[key], l.origin[key] = made, m
	return made, nil
}

// find returns a module that was made, or nil.
func (l *libraries) find(key string) module.Module {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made[key]
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

// open creates the context of one car. found says that the car was found by "*":
// its contexts are created with their first call, but for built-in modules that
// are made without waiting and then need no goroutine to wait for commands.
func (l *libraries) open(ctx context.Context, id fleet.CarID, m config.Module, found bool, position []byte) (car.Binding, error) {
	made, err := l.module(ctx, m)
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
func (l *libraries) make(ctx context.Context, m config.Module) (module.Module, error) {
	if l.instead != nil {
		return l.instead(m)
	}
	opts := host.Options{
		Expect:      m.Number,
		MemoryLimit: m.MemoryLimit,
		MaxRestarts: m.MaxRestarts,
		CallTimeout: m.CallTimeout,
		Logger:      l.log,
	}
	switch {
	case m.Builtin != "":
		return fleetapi.New(fleetapi.Options{
			Builtin:        string(m.Builtin),
			Pool:           l.pool,
			API:            l.api,
			Logger:         cmp.Or(l.builtinLog, l.log),
			SpoolDirectory: m.SpoolDirectory,
			SpoolMaxBytes:  m.SpoolMaxBytes,
			Await:          m.Answer == config.AnswerDelivered,
			DryRun:         l.dryRun,
		})
	case len(m.Command) > 0:
		opts.Command = m.Command
		opts.Name = strings.Join(m.Command, " ")
	case m.Isolation == config.IsolationNone:
		return cabi.Open(m.LibPath, cabi.Options{Expect: m.Number, Logger: l.log, Prime: true})
	default:
		opts = host.ForLibrary(m.LibPath, opts)
	}
	return host.Open(ctx, opts)
}

// ModuleProcesses tells how the modules that run in processes of their own are,
// ordered by module number.
func (a *App) ModuleProcesses() []module.ProcessState { return a.libraries.processes() }

// processes tells how the modules that run in processes of their own are.
func (l *libraries) processes() []module.ProcessState {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []module.ProcessState
	for _, made := range l.made {
		if m, ok := made.(*host.Module); ok {
			out = append(out, m.State())
		}
	}
	slices.SortFunc(out, func(a, b module.ProcessState) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// spools tells what is wrong with the spools of the built-in modules, "" for nothing, and
// whether there are any.
func (l *libraries) spools() (fault string, used bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var failing int
	var first string
	for key, made := range l.made {
		m, ok := made.(*fleetapi.Module)
		if !ok || l.origin[key].SpoolDirectory == "" {
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

// closeUnused closes the modules that no car of the configuration uses.
func (l *libraries) closeUnused(cfg *config.Config) error {
	used := make(map[string]bool)
	mark := func(modules []config.Module) {
		for _, m := range modules {
			if key, err := moduleKey(m); err == nil {
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
	return l.closeWhere(func(key string) bool { return !used[key] })
}

// close closes all modules; their instances were closed before.
func (l *libraries) close() error {
	err := l.closeWhere(func(string) bool { return true })
	l.pool.Close()
	return err
}

func (l *libraries) closeWhere(which func(key string) bool) error {
	l.making <- struct{}{} // what is made again waits for the end of its predecessor
	defer func() { <-l.making }()
	var closing []module.Module
	l.mu.Lock()
	for key, made := range l.made {
		if which(key) {
			delete(l.made, key)
			delete(l.origin, key)
			closing = append(closing, made)
		}
	}
	l.mu.Unlock()
	// Side by side: a process that does not end costs a second.
	errs := make([]error, len(closing))
	var all sync.WaitGroup
	for n, made := range closing {
		all.Go(func() { errs[n] = made.Close() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// retire says that the server stops, before the contexts are closed.
func (l *libraries) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, made := range l.made {
		if m, ok := made.(*host.Module); ok {
			m.Retire()
		}
	}
}
