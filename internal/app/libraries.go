package app

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"external-server/internal/config"
	"external-server/internal/module"
	"external-server/internal/module/cabi"
)

// libraries makes each module once, however many cars use it (MOD-4).
type libraries struct {
	log *slog.Logger

	mu   sync.Mutex
	made map[string]module.Module // by moduleKey
}

func newLibraries(log *slog.Logger) *libraries {
	return &libraries{log: log, made: make(map[string]module.Module)}
}

// moduleKey tells which configured modules are one module in the process. The
// module's own config is not part of it: it makes the context, not the module.
func moduleKey(m config.Module) (string, error) {
	switch {
	case m.Builtin != "":
		return "builtin " + string(m.Builtin), nil
	case len(m.Command) > 0:
		return "command " + strings.Join(m.Command, "\x00"), nil
	}
	path, err := filepath.Abs(m.LibPath)
	if err != nil {
		return "", fmt.Errorf("%s: library %s: %w", m.KeyPath, m.LibPath, err)
	}
	return "library " + path, nil
}

// module returns the module of the configuration, making it when it is the first
// to ask. Errors name the key of the configuration, the module number and the
// library (CLI-12).
func (l *libraries) module(m config.Module) (module.Module, error) {
	key, err := moduleKey(m)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if made, ok := l.made[key]; ok {
		if made.Number() != m.Number {
			return nil, fmt.Errorf("%s: library %s is configured as module %d and reports number %d; correct the key or the lib_path",
				m.KeyPath, m.LibPath, m.Number, made.Number())
		}
		return made, nil
	}
	made, err := l.make(m)
	if err != nil {
		return nil, fmt.Errorf("%s: module %d: %w", m.KeyPath, m.Number, err)
	}
	l.made[key] = made
	return made, nil
}

// make makes a module of the configured kind.
func (l *libraries) make(m config.Module) (module.Module, error) {
	return cabi.Open(m.LibPath, cabi.Options{Expect: m.Number, Logger: l.log})
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

func (l *libraries) close() error { return l.closeWhere(func(string) bool { return true }) }

func (l *libraries) closeWhere(which func(key string) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for key, made := range l.made {
		if !which(key) {
			continue
		}
		delete(l.made, key)
		if err := made.Close(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
