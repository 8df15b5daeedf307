// Package app builds the server from a configuration and runs its life: New
// does everything that can fail, Run serves until its context ends, Reload
// changes the configuration of a running server. Only this package knows all
// the others; tests embed it.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/admin"
	"external-server/internal/broker"
	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/httpapi"
	"external-server/internal/link/mqtt"
	"external-server/internal/logging"
	"external-server/internal/module"
	"external-server/internal/observe"
	"external-server/internal/tlsfiles"
)

// Options of New.
type Options struct {
	Config *config.Config
	Logger *slog.Logger
	// Version of the server, as the admin endpoint shows it.
	Version string
	// Logs are what Logger writes to; nil: levels cannot be changed while the
	// server runs.
	Logs *logging.Logs
	// Load reads the configuration again, for ReloadFile.
	Load func() (*config.Config, []config.Problem, error)
	// Module makes every module instead of what the configuration names, so that the
	// server can be measured without any; nil: as configured.
	Module func(config.Module) (module.Module, error)
}

// brokerHeader is room for topic and properties beside a payload, in bytes.
const brokerHeader = 1 << 10

// App is a server that was built and waits for Run or Close.
type App struct {
	log       *slog.Logger
	libraries *libraries
	broker    *broker.Broker // nil: an external one is used
	gateways  *gateways      // that the embedded broker sees
	// Certificate files, which a reload may replace: of the link, of the broker.
	clientTLS   atomic.Pointer[func() (*tls.Config, error)] // nil: no files
	brokerFiles *tlsfiles.Watched
	api         *httpapi.Server // nil: none is embedded
	link        *mqtt.Link
	roster      *roster
	hub         *observe.Hub  // nil: neither admin endpoint nor tracing
	admin       *admin.Server // nil: off
	logs        *logging.Logs // nil: not ours to change
	load        func() (*config.Config, []config.Problem, error)

	reloading *gate         // one Reload at a time
	stepLimit time.Duration // see waits.step
	mu        sync.Mutex
	cfg       *config.Config
}

// New loads the module libraries, opens one context per car and module, starts
// the embedded broker if there is one, and prepares the link. The external
// broker is not needed yet (CLI-20). A module that fails prevents the start
// (MOD-10, CLI-12). On error nothing is left behind.
func New(ctx context.Context, opts Options) (_ *App, err error) {
	a := &App{cfg: opts.Config, log: opts.Logger, reloading: newGate(), libraries: newLibraries(part(opts.Logger, logging.ComponentModule))}
	a.logs, a.load = opts.Logs, opts.Load
	a.libraries.instead = opts.Module
	a.gateways = newGateways()
	a.roster = newRoster(a.cfg, a.log, a.libraries)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close(ctx))
		}
	}()
	if err := a.startObserving(opts.Version); err != nil {
		return nil, err
	}
	if a.cfg.HTTPAPI != nil {
		a.api, err = httpapi.New(ctx, httpapi.Options{Config: *a.cfg.HTTPAPI, Logger: part(a.log, logging.ComponentHTTP)})
		if err != nil {
			return nil, err
		}
		a.libraries.api = a.api.API()
	}
	address, clientTLS, err := a.startBroker()
	if err != nil {
		return nil, err
	}
	a.link, err = mqtt.New(mqtt.Options{
		Address:     address,
		Username:    a.cfg.Broker.Username,
		Password:    a.cfg.Broker.Password.Reveal(),
		TLS:         clientTLS,
		Logger:      part(a.log, logging.ComponentLink),
		RetryMax:    a.cfg.RetryDelay,
		Connections: a.cfg.Broker.Connections,
		MaxPayload:  largestMessage(a.cfg),
		Presence:    a.presence(),
	})
	if err != nil {
		return nil, err
	}
	a.roster.link = a.link
	for _, cc := range a.cfg.Cars {
		if err := a.roster.add(ctx, cc); err != nil {
			return nil, err
		}
	}
	if err := a.roster.loadAny(ctx, a.cfg); err != nil {
		return nil, err
	}
	if err := a.startAdmin(opts.Version); err != nil {
		return nil, err
	}
	return a, nil
}

// part returns the logger of a component, whose level can be set apart.
func part(log *slog.Logger, component string) *slog.Logger {
	return log.With(logging.ComponentKey, component)
}

// startBroker starts the embedded broker, if there is one, and returns where and
// how the link reaches its broker.
func (a *App) startBroker() (address string, client func() (*tls.Config, error), err error) {
	address = net.JoinHostPort(a.cfg.Broker.Host, strconv.Itoa(a.cfg.Broker.Port))
	configured, err := tlsfiles.Client(a.cfg.Broker.TLS)
	if err != nil {
		return "", nil, err
	}
	if configured != nil {
		a.clientTLS.Store(&configured)
		client = a.latestTLS
	}
	eb := a.cfg.EmbeddedBroker
	if eb == nil {
		return address, client, nil
	}
	if a.brokerFiles, err = tlsfiles.Watch(eb.TLS); err != nil {
		return "", nil, fmt.Errorf("embedded_broker.tls: %w", err)
	}
	serverTLS := a.brokerFiles.Config()
	b, err := broker.New(broker.Options{
		Listen: eb.Listen, TLS: serverTLS, Users: brokerUsers(a.cfg), Logger: part(a.log, logging.ComponentBroker),
		MaxPacket: largestMessage(a.cfg) + brokerHeader, Subscribe: gatewayTopics, Present: a.gateways.present,
	})
	if err != nil {
		return "", nil, err
	}
	if err := b.Start(); err != nil {
		return "", nil, err
	}
	a.broker = b
	if a.cfg.Broker.Host == "" || address == eb.Listen {
		address = b.Addr().String()
		a.gateways.ours.Store(true)
		if client == nil && serverTLS != nil {
			client = func() (*tls.Config, error) { return tlsfiles.Pinned(serverTLS), nil }
		}
	}
	return address, client, nil
}

func (a *App) presence() string {
	if !a.cfg.Presence {
		return ""
	}
	return a.cfg.Company + "/external_server_status"
}

// Run serves all cars until ctx ends, then stops in the order of CLI-24: the
// gateways are notified, the modules see their devices disconnected and are
// destroyed, the link is flushed. It returns what could not be done in time;
// everything is released either way. Run may be called once.
func (a *App) Run(ctx context.Context) error {
	linkCtx, stopLink := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLink()
	carsCtx, stopCars := context.WithCancel(ctx)
	defer stopCars()
	if err := a.roster.start(carsCtx); err != nil {
		stopCars() // those that were started already
		return errors.Join(err, a.roster.stop(), a.Close(ctx))
	}
	var linkErr, apiErr, adminErr error
	var link, api, observing sync.WaitGroup
	link.Go(func() {
		linkErr = a.link.Run(linkCtx)
		stopCars() // without link there is nothing to serve
	})
	apiCtx, stopAPI := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAPI()
	if a.api != nil {
		api.Go(func() {
			apiErr = a.api.Run(apiCtx)
			a.endedEarly(apiCtx, "the HTTP API", apiErr)
		})
	}
	observeCtx, stopObserving := context.WithCancel(context.WithoutCancel(ctx))
	defer stopObserving()
	if a.hub != nil {
		observing.Go(func() { a.hub.Watch(observeCtx) })
	}
	observing.Go(func() { a.gateways.watch(carsCtx, a.gatewayGone) })
	if a.admin != nil {
		observing.Go(func() {
			adminErr = a.admin.Run(observeCtx)
			a.endedEarly(observeCtx, "the admin endpoint", adminErr)
		})
	}
	cfg := a.Config()
	a.log.Info("serving", "company", cfg.Company, "cars", len(cfg.Cars), "any_car", cfg.AnyCar != nil)
	<-carsCtx.Done()
	a.libraries.retire()
	errs := []error{a.roster.stop()}
	stopLink()
	link.Wait()
	stopAPI() // after the modules, which post their last statuses
	api.Wait()
	stopObserving() // last, so that the stop can be watched
	observing.Wait()
	errs = append(errs, linkErr, apiErr, adminErr, a.release())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	a.log.Info("stopped")
	return nil
}

// endedEarly says that a part of the server is gone; the cars are served all the
// same.
func (a *App) endedEarly(ctx context.Context, part string, err error) {
	if ctx.Err() == nil {
		a.log.Error(part+" has failed and is not served any more; restart the server to have it back", "error", err)
	}
}

// Close releases an App whose Run was never called.
func (a *App) Close(ctx context.Context) error {
	err := a.roster.discard()
	if a.api != nil {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, a.api.Shutdown(bound))
	}
	if a.admin != nil {
		err = errors.Join(err, a.admin.Close())
	}
	return errors.Join(err, a.release())
}

func (a *App) release() error {
	var errs []error
	if a.broker != nil {
		errs = append(errs, a.broker.Close())
	}
	if a.hub != nil { // traces that wait are exported, or given up
		bound, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := a.hub.Close(bound); err != nil {
			a.log.Warn("traces that waited were not exported", "error", err)
		}
	}
	return errors.Join(append(errs, a.libraries.close())...)
}

// Config returns the configuration in force.
func (a *App) Config() *config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// Cars returns a snapshot of every car, those of the configuration first and in
// its order, then those found by "*" in the order of their names.
func (a *App) Cars() []car.Snapshot { return a.roster.snapshots() }

// BrokerAddr is the address of the embedded broker, or nil without one.
func (a *App) BrokerAddr() net.Addr {
	if a.broker == nil {
		return nil
	}
	return a.broker.Addr()
}

// HTTPAPIAddr is the address of the embedded HTTP API, or nil without one.
func (a *App) HTTPAPIAddr() net.Addr {
	if a.api == nil {
		return nil
	}
	return a.api.Addr()
}

// LinkUp tells whether the broker is connected.
func (a *App) LinkUp() bool { return a.link.State().Up }
