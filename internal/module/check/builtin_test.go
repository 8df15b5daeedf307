package check

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/httpapi/server"
	"external-server/internal/module"
	"external-server/internal/module/fleetapi"
	"external-server/internal/support/testneed"
)

// TestBuiltinModules keep the rules as libraries must, with the HTTP API of the
// server behind them.
func TestBuiltinModules(t *testing.T) {
	testneed.Time(t)
	t.Parallel()
	api, err := server.New(t.Context(), server.Options{Config: config.HTTPAPI{
		Listen: "127.0.0.1:0", Store: config.NewSecret("sqlite:" + filepath.Join(t.TempDir(), "api.db")), WaitTimeout: time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- api.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	statuses := map[string]string{
		"mission":     `{"state":"IDLE","telemetry":{"speed":0},"nextStop":null}`,
		"io":          `[[],[],{"butPr":false}]`,
		"transparent": `{"a":1}`,
	}
	for number, builtin := range []string{"mission", "io", "transparent"} {
		t.Run(builtin, func(t *testing.T) {
			subtests(t, Target{
				Name:   builtin,
				Number: int32(number) + 1,
				Status: statuses[builtin],
				Cycles: 20,
				Open: func(context.Context) (module.Module, error) {
					return fleetapi.New(fleetapi.Options{Builtin: builtin, API: api.API()})
				},
			})
		})
	}
}
