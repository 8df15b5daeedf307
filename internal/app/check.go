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
			b, err := libs.bind(ctx, fleet.CarID{Company: cfg.Company, Car: c.Name}, m)
			if err == nil {
				bound, cancel := context.WithTimeout(ctx, 5*time.Second)
				err = b.Instance.Close(bound)
				cancel()
			}
			r.Err = err
			out = append(out, r)
		}
	}
	if err := libs.close(); err != nil && len(out) > 0 {
		last := &out[len(out)-1]
		last.Err = errors.Join(last.Err, err)
	}
	return out
}
