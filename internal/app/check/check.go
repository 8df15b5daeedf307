// Package check tries a configuration without serving.
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"

	"external-server/internal/app/modules"
	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/keys"
	"external-server/internal/httpapi/store"
	"external-server/internal/logging"
)

// Result is what Configuration found for one car and module.
type Result struct {
	Car    string
	Module int32
	Origin string // library, program or built-in module
	Err    error  // nil: the context could be created and destroyed
}

// Report is what Configuration found.
type Report struct {
	Modules  []Result
	Problems []config.Problem // of everything that is no module
	Warnings []string         // of modules, as a server would log them
}

// Configuration tries every module of the configuration without serving: the library is
// opened, its symbols and number are verified, and a context per car is created
// and destroyed. One failure does not hide another. A server may be running with
// the same configuration: built-in modules touch neither their spools nor the API.
// Files that the server reads or writes at its start are looked at as well.
func Configuration(ctx context.Context, cfg *config.Config) Report {
	var report Report
	warnings := &warningList{}
	var embedded httpapi.API // nil: none
	if cfg.HTTPAPI != nil {
		// Its store is not opened: a server may be running with it.
		api, err := httpapi.NewClient(httpapi.ClientOptions{URL: "http://localhost" + httpapi.BasePath, Transport: notServed{}})
		if err == nil {
			embedded = api
			defer api.Close()
		}
	}
	set := modules.New(modules.Options{
		Logger: slog.New(slog.DiscardHandler), BuiltinLogger: slog.New(warnings), DryRun: true,
		API:  func() httpapi.API { return embedded },
		Once: true, // a program that never greets takes its 10 s once, not once per car
	})
	cars := cfg.Cars
	if cfg.AnyCar != nil { // a name that such a car may have
		cars = append(slices.Clone(cars), config.Car{Name: "any_car", Modules: cfg.AnyCar.Modules})
	}
	for _, c := range cars {
		for _, m := range c.Modules {
			r := Result{Car: c.Name, Module: m.Number, Origin: m.Origin()}
			r.Err = checkModule(ctx, set, fleet.CarID{Company: cfg.Company, Car: c.Name}, m)
			report.Modules = append(report.Modules, r)
		}
	}
	if err := set.Close(); err != nil && len(report.Modules) > 0 {
		last := &report.Modules[len(report.Modules)-1]
		last.Err = errors.Join(last.Err, err)
	}
	report.Problems = checkFiles(cfg)
	report.Warnings = warnings.list
	if cfg.Cluster != nil {
		report.checkCluster(ctx, cfg)
	}
	return report
}

// checkFiles tries what a start needs and what can be tried without network and
// without any effect.
func checkFiles(cfg *config.Config) []config.Problem {
	var out []config.Problem
	add := func(name string, err error) {
		if err != nil {
			out = append(out, cfg.Problem(name, err.Error()))
		}
	}
	if t := cfg.Broker.TLS; t != nil {
		if t.CAFile != "" {
			_, err := tlsfiles.Client(&config.TLS{CAFile: t.CAFile})
			add(config.PlaceBrokerCA, err)
		}
		_, err := tlsfiles.Client(&config.TLS{CertFile: t.CertFile, KeyFile: t.KeyFile})
		add(config.PlaceBrokerCert, err)
	}
	if c := cfg.Cluster; c != nil {
		_, err := tlsfiles.Client(c.TLS)
		add("cluster.tls", err)
		if p := c.PeerTLS; p != nil {
			host, _, _ := net.SplitHostPort(cmp.Or(c.PeerAddress, c.PeerListen)) // was checked
			add("cluster.peer_tls", tlsfiles.Mutual(&config.TLS{CAFile: p.CAFile, CertFile: p.CertFile, KeyFile: p.KeyFile}, host, time.Now()))
		}
	}
	for _, of := range listeners(cfg) {
		_, err := tlsfiles.Server(of.files)
		add(of.key, err)
	}
	if h := cfg.HTTPAPI; h != nil {
		add("http_api.store", store.Check(h.Store.Reveal()))
		if h.KeysFile != "" {
			_, err := keys.Read(h.KeysFile)
			add("http_api.keys_file", err)
		}
	}
	if cfg.Logging.File.Use {
		add(config.PlaceLogPath, checkLogDirectory(cmp.Or(cfg.Logging.File.Path, ".")))
	}
	return out
}

// checkLogDirectory tells whether this user can make files in the directory of the
// log.
func checkLogDirectory(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory; expected the directory of the log file", dir)
	}
	const write, search = 2, 1 // of access(2)
	if err := syscall.Access(dir, write|search); err != nil {
		return fmt.Errorf("%s cannot be written to by this user: %w; expected a directory of the user that the server runs as", dir, err)
	}
	return nil
}

// warningList keeps what is logged at the level WARNING or above.
type warningList struct {
	attrs []slog.Attr
	root  *warningList // nil: this one
	list  []string
}

// Enabled implements slog.Handler.
func (*warningList) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler. Modules are opened one after the other, so it
// needs no lock.
func (w *warningList) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	show := func(a slog.Attr) bool {
		if a.Key != logging.ComponentKey {
			text += fmt.Sprintf("; %s %v", a.Key, a.Value)
		}
		return true
	}
	for _, a := range w.attrs {
		show(a)
	}
	r.Attrs(show)
	to := cmp.Or(w.root, w)
	to.list = append(to.list, text)
	return nil
}

// WithAttrs implements slog.Handler.
func (w *warningList) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &warningList{attrs: append(slices.Clone(w.attrs), attrs...), root: cmp.Or(w.root, w)}
}

// WithGroup implements slog.Handler; nothing here uses groups.
func (w *warningList) WithGroup(string) slog.Handler { return w }

// notServed takes the place of the embedded HTTP API, so that modules that would
// use it can be created.
type notServed struct{}

// RoundTrip fails.
func (notServed) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("the embedded HTTP API is not served during a check")
}

func checkModule(ctx context.Context, set *modules.Set, id fleet.CarID, m config.Module) error {
	b, err := set.Open(ctx, id, m, false, nil)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return b.Instance.Close(bound)
}
