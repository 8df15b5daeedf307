package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"external-server/internal/app"
	"external-server/internal/broker"
	"external-server/internal/config"
	"external-server/internal/module"
)

// Roles of a process that a benchmark starts.
const (
	RoleServer  = "server"  // this project's server with the module Null
	RoleLibrary = "library" // the same with a C library that does nothing, in a process of its own
	RoleBuiltin = "builtin" // the same with a built-in module and the HTTP API inside
	RoleKept    = "kept"    // the server with a state directory
	RoleMany    = "many"    // the server without one, with as many connections to the broker
	RoleReplica = "replica" // the same as a replica of a cluster
	RoleEcho    = "echo"    // the cheapest responder
	RoleBroker  = "broker"  // the embedded broker alone
)

// Child is what a child process is to do; it travels as JSON in an argument.
type Child struct {
	Role         string
	Address      string // of the broker
	Company      string
	Cars         int
	Prefix       string
	Limits       map[string]any `json:",omitempty"` // block "limits" of the configuration
	CommandEvery time.Duration
	Dir          string // for files
	Library      string `json:",omitempty"` // of RoleLibrary
	// Of RoleReplica: how many there are, the URL of etcd, the name and the address for the others.
	Replicas             int    `json:",omitempty"`
	Etcd, Replica, Peers string `json:",omitempty"`
	Profile              string // "": none; else the beginning of the names of the profiles
}

// readyLine is what a child prints when it serves; a broker adds its address.
const readyLine = "ready"

func (c *Child) carNames() []string {
	names := make([]string, c.Cars)
	for i := range names {
		names[i] = fmt.Sprintf("%s%d", c.Prefix, i+1)
	}
	return names
}

// connections is the number of broker connections that the server would choose.
func (c *Child) connections() int { return min(1+c.Cars/2000, 4) }

// RunChild does what the JSON text says until ctx or stdin ends.
func RunChild(ctx context.Context, text string, in io.Reader, out io.Writer) error {
	var c Child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("this command is for the processes that `bench` starts: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := func() { fmt.Fprintln(out, readyLine) }
	if c.Profile != "" {
		stop, err := profile(c.Profile)
		if err != nil {
			return err
		}
		written := make(chan struct{})
		go func() { // before the end of ctx empties the heap
			_, _ = io.Copy(io.Discard, in)
			_ = stop()
			close(written)
			cancel()
		}()
		defer func() { <-written }()
	} else {
		go func() { // ends with the process, like its parent's end of the pipe
			_, _ = io.Copy(io.Discard, in)
			cancel()
		}()
	}
	switch c.Role {
	case RoleEcho:
		return Echo(ctx, EchoOptions{Address: c.Address, Company: c.Company, Cars: c.carNames(), Connections: c.connections(), CommandEvery: c.CommandEvery}, ready)
	case RoleBroker:
		b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		if err := b.Start(); err != nil {
			return err
		}
		fmt.Fprintln(out, readyLine, b.Addr())
		<-ctx.Done()
		return b.Close()
	case RoleServer, RoleLibrary, RoleBuiltin, RoleKept, RoleMany, RoleReplica:
		return c.serve(ctx, ready)
	}
	return fmt.Errorf("unknown role %q", c.Role)
}

// serve runs the server as `external-server -c FILE` does, with logging at the
// level WARNING to standard error.
func (c *Child) serve(ctx context.Context, ready func()) error {
	path, err := c.writeConfig()
	if err != nil {
		return err
	}
	cfg, _, err := config.Load(path, os.LookupEnv)
	if err != nil {
		return err
	}
	opts := app.Options{Config: cfg, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	if slices.Contains([]string{RoleServer, RoleKept, RoleMany, RoleReplica}, c.Role) {
		opts.Module = func(config.Module) (module.Module, error) { return Null{CommandEvery: c.CommandEvery}, nil }
	}
	app.TuneMemory(cfg)
	server, err := app.New(ctx, opts)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !server.LinkUp() {
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
		ready()
	}()
	err = server.Run(ctx)
	close(done)
	return err
}

type object = map[string]any

func (c *Child) writeConfig() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	modules := object{fmt.Sprint(NullNumber): object{"command": []string{self}}} // replaced by Null
	switch c.Role {
	case RoleLibrary:
		modules = object{fmt.Sprint(NullNumber): object{"lib_path": c.Library, "config": object{}}}
	case RoleBuiltin:
		modules = object{"3": object{"builtin": "transparent", "config": object{}}}
	}
	cars := object{}
	for _, name := range c.carNames() {
		cars[name] = object{}
	}
	host, port, err := splitAddress(c.Address)
	if err != nil {
		return "", err
	}
	cfg := object{
		"company_name":           c.Company,
		"external_communication": object{"protocol": "MQTT", "server_address": host, "server_port": port, "timeout_ms": 30000},
		"timeout":                5,
		"send_invalid_command":   false,
		"sleep_duration_after_connection_refused": 1,
		"common_modules": modules,
		"cars":           cars,
		"logging": object{
			"console": object{"level": "ERROR", "use": false},
			"file":    object{"level": "ERROR", "use": false, "path": c.Dir},
		},
	}
	if c.Role == RoleMany {
		cfg["external_communication"].(object)["connections"] = 32
	}
	if c.Role == RoleReplica {
		cfg["cluster"] = object{"etcd": []string{c.Etcd}, "replica": c.Replica, "shards": clusterShards,
			"peer_listen": c.Peers, "peer_token": "of-this-measurement"}
	}
	if c.Role == RoleKept || c.Role == RoleReplica {
		cfg["state_directory"] = filepath.Join(c.Dir, "state")
	}
	if len(c.Limits) > 0 {
		cfg["limits"] = c.Limits
	}
	if c.Role == RoleBuiltin {
		cfg["http_api"] = object{"listen": "127.0.0.1:0", "store": "sqlite:" + filepath.Join(c.Dir, "api.db")}
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.Dir, "config.json")
	return path, errors.Join(os.WriteFile(path, text, 0o600))
}
