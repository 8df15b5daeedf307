package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/console"
	"external-server/internal/lab/gateway"
	"external-server/internal/lab/simulate"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// townConfig is a server with the mission and io modules, its API out of reach.
func townConfig(t *testing.T, file, broker, admin string, cars ...string) {
	t.Helper()
	writeConfig(t, file, broker, admin, cars...)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	api := map[string]any{"api_url": "http://127.0.0.1:1", "api_key": "k"}
	all["common_modules"] = map[string]any{"1": map[string]any{"builtin": "mission", "config": api}, "2": map[string]any{"builtin": "io", "config": api}}
	if raw, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The simulated cars of module 1 are a town on the map: each has a place of its own,
// and they drive.
func TestSimulatedCarsAreATown(t *testing.T) {
	testneed.Time(t)
	dir := t.TempDir()
	addresses := freeAddresses(t, 2)
	file, broker, admin := filepath.Join(dir, "config.json"), addresses[0], addresses[1]
	townConfig(t, file, broker, admin, "*")
	t.Cleanup(runServer(t, file))
	ctx, cancel := context.WithCancel(t.Context())
	var simulating sync.WaitGroup
	simulating.Go(func() {
		if _, err := command(ctx, "simulate", "--broker", broker, "--company", "acme", "--cars", "20", "--devices", "1", "--module", "1", "--rate", "5",
			"--duration", "1h", "--seed", "4"); err != nil {
			t.Error(err)
		}
	})
	defer simulating.Wait()
	defer cancel()
	type place struct{ Latitude, Longitude float64 }
	type position struct {
		Car, State string
		place
		Fuel float64
	}
	first, moved, states := make(map[string]place), make(map[string]bool), make(map[string]bool)
	testwait.Until(t, "twenty places, and cars that drive", func() bool {
		text, err := adminGet(t, admin, "/api/v1/positions")
		var got struct{ Positions []position }
		if err != nil || json.Unmarshal(text, &got) != nil {
			return false
		}
		here := make(map[place]bool)
		for _, p := range got.Positions {
			here[p.place] = true
			states[p.State] = true
			if p.Fuel <= 0 || p.Fuel > 1 {
				t.Errorf("%s has %v of its fuel", p.Car, p.Fuel)
			}
			if was, known := first[p.Car]; !known {
				first[p.Car] = p.place
			} else if was != p.place {
				moved[p.Car] = true
			}
		}
		return len(got.Positions) == 20 && len(here) == 20 && len(moved) >= 10 && states["DRIVE"] && len(states) > 1
	})
}

// A car that the operator removes is no violation of the protocol: the cars say that
// no server answers them.
func TestRemovedCarIsNoViolation(t *testing.T) {
	testneed.Time(t)
	dir := t.TempDir()
	addresses := freeAddresses(t, 2)
	file, broker, admin := filepath.Join(dir, "config.json"), addresses[0], addresses[1]
	townConfig(t, file, broker, admin, "car_1", "car_2")
	t.Cleanup(runServer(t, file))
	f, err := simulate.New(simulate.Options{Broker: gateway.Broker{Address: broker}, Company: "acme", Cars: 2, Devices: 1, Module: 2, DeviceType: -1, Rate: 5, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var driving sync.WaitGroup
	driving.Go(func() { f.Drive(ctx, time.Hour) })
	defer driving.Wait()
	defer cancel()
	townConfig(t, file, broker, admin, "car_1")
	if _, err := command(t.Context(), "reload", "-c", file); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "a car without a server", func() bool { return f.Figures().Unserved == 1 })
	r := f.Report()
	var said strings.Builder
	r.Explain(&said)
	if r.Guilty() != 0 || r.Unserved != 1 || r.Connected != 1 {
		t.Errorf("%d violations, %d cars unserved, %d connected: %+v", r.Guilty(), r.Unserved, r.Connected, r)
	}
	for _, want := range []string{"1 cars are not connected because no server answers them", "rule GW-40", "The server ended the session"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the summary does not say %q:\n%s", want, said.String())
		}
	}
}

// --status takes JSON, or a file with one status, or with one per line.
func TestStatusesAreRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for value, want := range map[string][]string{
		"":                     nil,
		`{"dark": true}`:       {`{"dark": true}`},
		write("one", "{\n}\n"): {"{\n}"},
		write("two", "{\"dark\": true}\r\n{\"dark\": false}\r\n"): {`{"dark": true}`, `{"dark": false}`},
		write("text", "one\ntwo"):                                 {"one\ntwo"},
	} {
		got, err := readStatuses(value)
		same := slices.EqualFunc(got, want, func(g []byte, w string) bool { return string(g) == w })
		if err != nil || !same {
			t.Errorf("%q gives %q, %v; expected %q", value, got, err, want)
		}
	}
	bad := map[string]string{`{"dark": `: "neither JSON nor a file", "nowhere": "neither JSON nor a file", write("empty", "\n"): "is empty"}
	for _, value := range slices.Sorted(maps.Keys(bad)) {
		var usage usageError
		if _, err := readStatuses(value); !errors.As(err, &usage) || !strings.Contains(err.Error(), bad[value]) {
			t.Errorf("%q: %v, expected %q", value, err, bad[value])
		}
	}
}

// adminGet asks the endpoint as an operator.
func adminGet(t *testing.T, admin, path string) ([]byte, error) {
	t.Helper()
	c, err := console.NewClient("http://"+admin, "read-secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Raw(t.Context(), path, nil)
}
