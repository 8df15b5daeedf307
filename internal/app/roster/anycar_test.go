package roster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"external-server/internal/app/journals"
	"external-server/internal/app/modules"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/support/testlog"
)

// TestFoundCarsThatFailAreLogged: a stranger who finds cars that cannot be served does
// not write a line for each.
func TestFoundCarsThatFailAreLogged(t *testing.T) {
	var log testlog.Buffer
	anyCar := config.Car{Modules: []config.Module{{Number: 1, Builtin: "mission"}}}
	discard := slog.New(slog.DiscardHandler)
	set := modules.New(modules.Options{Logger: discard})
	r := New(Options{
		Config: &config.Config{Company: "c", AnyCar: &anyCar}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Modules: set, Journals: journals.New(journals.Options{Logger: discard}),
	})
	r.ctx, r.any.stop = context.Background(), func() {}
	connect := []byte("\x0a\x07\x0a\x01s\x22\x02\x08\x01")
	for n := range 100 {
		r.foundCar(fleet.CarID{Company: "c", Car: fmt.Sprint("car", n)}, connect)
	}
	if lines := strings.Count(log.String(), "cannot be served"); lines != 1 {
		t.Errorf("%d lines for 100 Connects", lines)
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
}
