package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/freeport"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
	"external-server/internal/tools/man"
)

var teleop = fleet.Device{Module: 3, Type: 7, Role: "teleop", Name: "Tele\x1b[31mop"}

// command runs a sub-command and returns what it printed.
func command(ctx context.Context, args ...string) (string, error) {
	root := newRootCommand()
	var out output
	root.SetOut(&out)
	root.SetErr(&bytes.Buffer{})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

// output is read while a command still writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// freeAddresses returns n addresses for servers, also for one that is restarted: no outgoing
// connection gets them meanwhile.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	all, err := freeport.Addresses(n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// serving runs the real server from a configuration file, as the binary does.
func serving(t *testing.T, cars ...string) (file, broker string) {
	t.Helper()
	dir := t.TempDir()
	addresses := freeAddresses(t, 2)
	file, broker = filepath.Join(dir, "config.json"), addresses[0]
	writeConfig(t, file, broker, addresses[1], cars...)
	t.Cleanup(runServer(t, file))
	return file, broker
}

// runServer runs the server until it is stopped.
func runServer(t *testing.T, file string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := command(ctx, "-c", file)
		ended <- err
	}()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	testwait.Until(t, "the server", func() bool {
		text, err := command(t.Context(), "cars", "-c", file, "--json")
		return err == nil && !strings.Contains(text, "no connection to the broker")
	})
	return stop
}

func writeConfig(t *testing.T, file, broker, admin string, cars ...string) {
	t.Helper()
	served := map[string]any{}
	for _, c := range cars {
		served[c] = map[string]any{}
	}
	raw, err := json.Marshal(map[string]any{
		"company_name":           "acme",
		"embedded_broker":        map[string]any{"listen": broker},
		"external_communication": map[string]any{"server_address": "", "timeout_ms": 30000},
		"timeout":                25,
		"sleep_duration_after_connection_refused": 1,
		"common_modules": map[string]any{"3": map[string]any{"builtin": "transparent", "config": map[string]any{"api_url": "http://127.0.0.1:1", "api_key": "k"}}},
		"cars":           served,
		"admin": map[string]any{"listen": admin, "tokens": []any{
			map[string]any{"name": "ops", "role": "operate", "token": "operate-secret"}, map[string]any{"name": "eve", "token": "read-secret"}}},
		"logging": map[string]any{"console": map[string]any{"use": true, "level": "CRITICAL"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func startGateway(t *testing.T, broker, car string) *gateway.Gateway {
	t.Helper()
	g, err := gateway.Start(gateway.Settings{
		Car: fleet.CarID{Company: "acme", Car: car}, Broker: gateway.Broker{Address: broker},
		Core: gateway.Options{Steady: true, Timing: gateway.Timing{RetryPause: 50 * time.Millisecond, QueuePoll: 20 * time.Millisecond,
			LinkTimeout: testwait.Patience, MessageTimeout: testwait.Patience}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// TestOperate does with the command line what an operator does.
func TestOperate(t *testing.T) {
	testneed.Time(t)
	file, broker := serving(t, "car1", "car2")
	run := func(args ...string) string {
		t.Helper()
		text, err := command(t.Context(), append(args, "-c", file)...)
		if err != nil {
			t.Errorf("%v: %v", args, err)
		}
		return text
	}
	fails := func(want string, args ...string) {
		t.Helper()
		if _, err := command(t.Context(), append(args, "-c", file)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	following, stop := context.WithCancel(t.Context())
	defer stop()
	var followed, sniffed output
	var following2 sync.WaitGroup
	follow := func(out *output, args ...string) {
		following2.Go(func() {
			root := newRootCommand()
			root.SetOut(out)
			root.SetErr(out)
			root.SetArgs(append(args, "-c", file))
			if err := root.ExecuteContext(following); err != nil {
				t.Errorf("%v: %v", args, err)
			}
		})
	}
	follow(&followed, "events", "--all")
	follow(&sniffed, "sniff", "--car", "car1")
	testwait.Until(t, "sniff to listen", func() bool { return strings.Contains(sniffed.String(), "listening to acme/car1") })

	g := startGateway(t, broker, "car1")
	g.Status(teleop, []byte(`{"speed":1}`), time.Time{})
	testwait.Until(t, "the session", func() bool { return strings.Contains(run("cars", "--state", "running"), "car1  running") })
	if text := run("cars"); !strings.Contains(text, "2 cars: 1 running, 0 connecting, 1 waiting") || !strings.Contains(text, "has not been heard") {
		t.Errorf("cars:\n%s", text)
	}
	if text := run("cars", "--why", "not been heard", "--name", "car"); strings.Contains(text, "car1 ") || !strings.Contains(text, "car2") {
		t.Errorf("cars --why:\n%s", text)
	}
	text := run("car", "car1")
	for _, want := range []string{"acme/car1: running", `{"speed":1}`, `3/7/teleop/Tele\x1b[31mop`} {
		if !strings.Contains(text, want) {
			t.Errorf("car lacks %q:\n%s", want, text)
		}
	}
	for _, out := range []string{text, followed.String(), sniffed.String()} {
		if strings.Contains(out, "\x1b") {
			t.Errorf("a control character of a car reached the output: %q", out)
		}
	}
	var detail map[string]any
	if err := json.Unmarshal([]byte(run("car", "car1", "--json")), &detail); err != nil || detail["state"] != "running" {
		t.Errorf("car --json: %v %v", err, detail["state"])
	}
	if text := run("log-level"); !strings.Contains(text, "CRITICAL") {
		t.Errorf("log-level:\n%s", text)
	}
	overridden := func() bool { return strings.Contains(run("log-level"), "operator; configured is CRITICAL") }
	if overridden() {
		t.Error("a level is shown as set by an operator")
	}
	run("log-level", "car", "ERROR")
	if !overridden() {
		t.Error("the changed level is not shown as set by an operator")
	}
	run("log-level", "car", "--reset")
	if overridden() {
		t.Error("the reset level is shown as set by an operator")
	}
	fails("unknown component", "log-level", "engine", "DEBUG")
	fails("unknown log level", "log-level", "car", "LOUD")
	fails("expected a component and a level", "log-level", "car")
	fails("car nobody is not served", "car", "nobody")
	fails("sort is", "cars", "--sort", "colour")
	fails("--kind", "sniff", "--kind", "gossip")
	fails("needs the role operate", "disconnect", "car1", "--token", "read-secret")
	fails(tokenVariable, "cars", "--token", "wrong")

	run("disconnect", "car1")
	testwait.Until(t, "the events", func() bool {
		text := followed.String()
		return strings.Contains(text, "disconnected by an operator") && strings.Contains(text, "running") && strings.Contains(text, "operator")
	})
	g.Status(teleop, []byte(`{"speed":2}`), time.Time{})
	testwait.Until(t, "the traffic", func() bool {
		text := sniffed.String()
		return !slices.ContainsFunc([]string{"→ server  connect ", "→ gateway connectResponse", "→ gateway disconnect", `{"speed":2}`, "CONNECTING"},
			func(s string) bool { return !strings.Contains(text, s) })
	})
	testwait.Until(t, "the session", func() bool {
		g.Status(teleop, []byte(`{"speed":3}`), time.Time{}) // the one before may have been on its way when the gateway was told
		return strings.Contains(run("cars", "--state", "running"), "car1")
	})
	run("reannounce", "car1")

	_, admin, _ := strings.Cut(detailAddress(t, file), "//")
	writeConfig(t, file, broker, admin, "car1", "car2", "car3")
	if text := run("reload"); !strings.Contains(text, "1 cars added, 0 removed, 0 changed, 2 unchanged") {
		t.Errorf("reload: %s", text)
	}
	writeConfig(t, file, broker, admin, "car1")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the reload by SIGHUP", func() bool { return strings.Contains(run("cars"), "1 cars:") })
	stop()
	following2.Wait()
}

// detailAddress is the admin endpoint of the configuration.
func detailAddress(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ Admin struct{ Listen string } }
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return "http://" + c.Admin.Listen
}

// What follows a server waits for it while it is started anew, and says so.
func TestFollowersSurviveARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	addresses := freeAddresses(t, 2)
	writeConfig(t, file, addresses[0], addresses[1], "car1")
	stop := runServer(t, file)
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	follow := func(args ...string) (out, notes *output) {
		out, notes = &output{}, &output{}
		root := newRootCommand()
		root.SetOut(out)
		root.SetErr(notes)
		root.SetArgs(append(args, "-c", file))
		following.Go(func() {
			if err := root.ExecuteContext(ctx); err != nil {
				t.Error(err)
			}
		})
		return out, notes
	}
	cars, carsNotes := follow("cars", "--watch", "--interval", "100ms")
	events, eventsNotes := follow("events", "--all")
	testwait.Until(t, "the first answers", func() bool { return cars.String() != "" && events.String() != "" })
	stop()
	testwait.Until(t, "the notes", func() bool {
		return strings.Contains(carsNotes.String(), "cannot be asked") && strings.Contains(eventsNotes.String(), "trying again")
	})
	before := len(cars.String())
	stop = runServer(t, file)
	testwait.Until(t, "the new server", func() bool {
		return len(cars.String()) > before && strings.Contains(eventsNotes.String(), "connected again")
	})
	cancel()
	following.Wait()
	stop()
	if n := strings.Count(carsNotes.String(), "trying again"); n != 1 {
		t.Errorf("%d notes for one loss:\n%s", n, carsNotes.String())
	}
}

// A file that is broken while it is edited does not keep an operator from the server that
// runs: the endpoint is asked all the same.
func TestBrokenFileOnDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(`{"company_name": `), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddresses(t, 1)[0]
	for _, args := range [][]string{{"cars"}, {"reload"}, {"car", "car1"}, {"log-level"}} {
		var notes strings.Builder
		root := newRootCommand()
		root.SetOut(io.Discard)
		root.SetErr(&notes)
		root.SetArgs(append(args, "-c", file, "--admin", "http://"+address))
		err := root.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), "http://"+address+" cannot be asked") {
			t.Errorf("%s: %v", args, err)
		}
		if text := notes.String(); !strings.Contains(text, file) || !strings.Contains(text, "asking http://"+address) {
			t.Errorf("%s says %q", args, text)
		}
	}
	if _, err := command(t.Context(), "cars", "-c", file+".not"); err == nil || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// An endpoint that does not answer is reported with what to do.
func TestNoEndpoint(t *testing.T) {
	addresses := freeAddresses(t, 2)
	_, err := command(t.Context(), "cars", "--admin", "http://"+addresses[0])
	if err == nil || !strings.Contains(err.Error(), "cannot be asked") || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"ftp://x", "127.0.0.1:8090", "http://"} {
		if _, err := command(t.Context(), "events", "--admin", bad); err == nil || !strings.Contains(err.Error(), "expected a URL") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	_, err = command(t.Context(), "sniff", "--broker", addresses[1], "--company", "acme")
	if err == nil || !strings.Contains(err.Error(), "broker 127.0.0.1") {
		t.Errorf("sniff: %v", err)
	}
	var usage usageError
	if _, err := command(t.Context(), "sniff", "--broker", "x", "--company", "acme"); !errors.As(err, &usage) {
		t.Errorf("sniff: %v", err)
	}
	if _, err := command(t.Context(), "sniff", "--broker", "h:1", "--company", "a/#"); !errors.As(err, &usage) {
		t.Errorf("sniff: %v", err)
	}
}

// Every command that can be seen has a manual page.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if err := man.Write(newRootCommand(), dir, version, manualSections); err != nil {
		t.Fatal(err)
	}
	for _, c := range newRootCommand().Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("external-server-%s.1", c.Name())))
		if err != nil || !strings.Contains(string(raw), ".SH SYNOPSIS") {
			t.Errorf("%s: %v", c.Name(), err)
		}
	}
	if text, err := command(t.Context(), "completion", "bash"); err != nil || !strings.Contains(text, "external-server") {
		t.Errorf("completion: %v", err)
	}
}
