package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
)

// CheckResult is what Check found for one car and module.
type CheckResult struct {
	Car     string
	Module  int32
	Library string
	Err     error // nil: the context could be created and destroyed
}

// Check tries every module of the configuration without serving: the library is
// opened, its symbols and number are verified, and a context per car is created
// and destroyed. One failure does not hide another.
func Check(ctx context.Context, cfg *config.Config) []CheckResult {
	libs := newLibraries(slog.New(slog.DiscardHandler))
	var out []CheckResult
	for _, c := range cfg.Cars {
		for _, m := range c.Modules {
			r := CheckResult{Car: c.Name, Module: m.Number, Library: m.LibPath}
			r.Err = checkModule(ctx, libs, fleet.CarID{Company: cfg.Company, Car: c.Name}, m)
			out = append(out, r)
		}
	}
	if err := libs.close(); err != nil && len(out) > 0 {
		last := &out[len(out)-1]
		last.Err = errors.Join(last.Err, err)
	}
	return out
}

func checkModule(ctx context.Context, libs *libraries, id fleet.CarID, m config.Module) error {
	mod, err := libs.module(m)
	if err != nil {
		return err
	}
	instance, err := mod.Open(ctx, m.Spec(id))
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return instance.Close(bound)
}
