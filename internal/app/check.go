package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// CheckResult is what Check found for one car and module.
type CheckResult struct {
	Car    string
	Module int32
	Origin string // library, program or built-in module
	Err    error  // nil: the context could be created and destroyed
}

// Check tries every module of the configuration without serving: the library is
// opened, its symbols and number are verified, and a context per car is created
// and destroyed. One failure does not hide another. A server may be running with
// the same configuration: built-in modules touch neither their spools nor the API.
func Check(ctx context.Context, cfg *config.Config) []CheckResult {
	libs := newLibraries(slog.New(slog.DiscardHandler))
	libs.dryRun = true
	libs.failed = make(map[string]error) // a program that never greets takes its 10 s once, not once per car
	if cfg.HTTPAPI != nil {
		// Its store is not opened: a server may be running with it.
		api, err := httpapi.NewClient(httpapi.ClientOptions{URL: "http://localhost" + httpapi.BasePath, Transport: notServed{}})
		if err == nil {
			libs.api = api
			defer api.Close()
		}
	}
	var out []CheckResult
	cars := cfg.Cars
	if cfg.AnyCar != nil { // a name that such a car may have
		cars = append(slices.Clone(cars), config.Car{Name: "any_car", Modules: cfg.AnyCar.Modules})
	}
	for _, c := range cars {
		for _, m := range c.Modules {
			r := CheckResult{Car: c.Name, Module: m.Number, Origin: m.Origin()}
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

// notServed takes the place of the embedded HTTP API, so that modules that would
// use it can be created.
type notServed struct{}

// RoundTrip fails.
func (notServed) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("the embedded HTTP API is not served during a check")
}

func checkModule(ctx context.Context, libs *libraries, id fleet.CarID, m config.Module) error {
	b, err := libs.open(ctx, id, m, false)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return b.Instance.Close(bound)
}
