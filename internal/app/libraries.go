package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/module/cabi"
)

// libraries loads each module library once, however many cars use it (MOD-4).
type libraries struct {
	log    *slog.Logger
	loaded map[string]*cabi.Library // by absolute path
}

func newLibraries(log *slog.Logger) *libraries {
	return &libraries{log: log, loaded: make(map[string]*cabi.Library)}
}

// bind opens the context of one car and module. Errors name the key of the
// configuration, the module number and the library (CLI-12).
func (l *libraries) bind(ctx context.Context, id fleet.CarID, m config.Module) (car.Binding, error) {
	lib, err := l.load(m)
	if err != nil {
		return car.Binding{}, err
	}
	instance, err := lib.Open(ctx, m.Spec(id))
	if err != nil {
		return car.Binding{}, fmt.Errorf("%s: module %d for car %s: %w", m.KeyPath, m.Number, id.Car, err)
	}
	return car.Binding{Module: lib, Instance: instance}, nil
}

func (l *libraries) load(m config.Module) (*cabi.Library, error) {
	path, err := filepath.Abs(m.LibPath)
	if err != nil {
		return nil, fmt.Errorf("%s: library %s: %w", m.KeyPath, m.LibPath, err)
	}
	if lib, ok := l.loaded[path]; ok {
		if lib.Number() != m.Number {
			return nil, fmt.Errorf("%s: library %s is configured as module %d and reports number %d; correct the key or the lib_path",
				m.KeyPath, m.LibPath, m.Number, lib.Number())
		}
		return lib, nil
	}
	lib, err := cabi.Open(path, cabi.Options{Expect: m.Number, Logger: l.log})
	if err != nil {
		return nil, fmt.Errorf("%s: module %d: %w", m.KeyPath, m.Number, err)
	}
	l.loaded[path] = lib
	return lib, nil
}

func (l *libraries) close() error {
	var errs []error
	for path, lib := range l.loaded {
		if err := lib.Close(); err != nil {
			errs = append(errs, fmt.Errorf("library %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}
