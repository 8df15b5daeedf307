// Package app builds the server from a configuration and runs its life: New
// does everything that can fail, Run serves until its context ends, Reload
// changes the configuration of a running server. Its parts stand in one list, see
// parts; what they serve is in the packages below it. Only this package knows all
// the others; tests embed it.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/admin"
	"external-server/internal/app/journals"
	"external-server/internal/app/modules"
	"external-server/internal/app/replica"
	"external-server/internal/app/roster"
	"external-server/internal/broker"
	"external-server/internal/car"
	"external-server/internal/cluster"
	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/httpapi"
	apiserver "external-server/internal/httpapi/server"
	"external-server/internal/link"
	"external-server/internal/link/shards"
	"external-server/internal/logging"
	"external-server/internal/module"
	"external-server/internal/observe"
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

	membership func(cluster.Host, *config.Config) replica.Membership // tests
	link       func(link.Link) link.Link                             // tests: what the cars are attached to
}

// App is a server that was built and waits for Run or Close.
type App struct {
	log      *slog.Logger
	version  string
	parts    parts
	began    changes                 // of the start, to be applied by Run
	cars     *carsPart               // one of parts
	linkTo   *linkPart               // one of parts
	sessions *sessionsPart           // one of parts
	end      context.CancelCauseFunc // of the service; set by Run
	ended    func() error            // why the service ends; nil: it does not; set by Run
	stopping atomic.Bool             // Stop was called
	modules  *modules.Set
	journals *journals.Journals
	broker   *broker.Broker // nil: an external one is used
	gateways *gateways      // that the embedded broker sees
	// Certificate files, which a reload may replace: of the link, of the broker.
	clientTLS     atomic.Pointer[func() (*tls.Config, error)] // nil: no files
	brokerFiles   *tlsfiles.Watched
	brokerPayload int               // largest payload that the embedded broker takes, bytes
	api           *apiserver.Server // nil: none is embedded
	link          carLink
	shards        *shards.Link // the same, in a cluster
	peers         *peersPart   // one of parts
	membership    func(cluster.Host, *config.Config) replica.Membership
	cluster       *clusterPart   // one of parts
	roster        *roster.Roster // made by the start of the cars
	linkOfCars    func(link.Link) link.Link
	hub           *observe.Hub  // nil: neither admin endpoint nor tracing
	admin         *admin.Server // nil: off
	logs          *logging.Logs // nil: not ours to change
	load          func() (*config.Config, []config.Problem, error)

	reloading *gate         // one Reload at a time
	waits     *waits        // of the Reload
	stepLimit time.Duration // see waits.step
	mu        sync.Mutex
	cfg       *config.Config
}

// New loads the module libraries, opens one context per car and module, starts
// the embedded broker if there is one, and prepares the link. The external
// broker is not needed yet (CLI-20). A module that fails prevents the start
// (MOD-10, CLI-12). On error nothing is left behind.
func New(ctx context.Context, opts Options) (*App, error) {
	a := &App{
		cfg: opts.Config, log: opts.Logger, version: opts.Version, logs: opts.Logs, load: opts.Load,
		reloading: newGate(), gateways: newGateways(), membership: opts.membership, linkOfCars: opts.link,
	}
	a.modules = modules.New(modules.Options{
		Logger: component(a.log, logging.ComponentModule), Instead: opts.Module,
		API: func() httpapi.API {
			if a.api == nil {
				return nil
			}
			return a.api.API()
		},
	})
	a.journals = journals.New(journals.Options{
		Logger: component(a.log, logging.ComponentServer), Version: a.version, OwnBroker: a.gateways.ours.Load,
		Tell: func(e observe.Event) {
			if a.hub != nil {
				a.hub.Events.Put(e)
			}
		},
	})
	a.parts = a.list()
	var err error
	if a.began, err = a.parts.prepare(ctx, nil, a.cfg); err != nil {
		a.sessions.final = errors.Is(context.Cause(ctx), ErrFinal)
		return nil, errors.Join(err, a.parts.stop())
	}
	return a, nil
}

// component returns the logger of a component, whose level can be set apart.
func component(log *slog.Logger, name string) *slog.Logger {
	return log.With(logging.ComponentKey, name)
}

// ErrFinal is the cause of the end of the contexts of New and Run when no later process
// goes on with the sessions: they end, gateways are told, and the broker and the state
// directory forget them.
var ErrFinal = errors.New("stopped for good")

// errStop is the cause of a stop that Stop was asked for.
var errStop = errors.New("stopped by an operator")

// Stop ends Run as the end of its context does, with final as with ErrFinal. It returns
// at once, and tells whether this call is the one that stops the server: one that ends already goes
// on to end as it has begun to. It may be called while Run runs.
func (a *App) Stop(final bool) bool {
	if !a.stopping.CompareAndSwap(false, true) || a.ended() != nil {
		return false
	}
	cause := errStop
	if final {
		cause = ErrFinal
	}
	a.end(cause)
	return errors.Is(a.ended(), cause)
}

// Stopping tells whether Stop was called.
func (a *App) Stopping() bool { return a.stopping.Load() }

// Run serves all cars until ctx ends, then stops in the order of CLI-24: the
// gateways are notified, the modules see their devices disconnected and are
// destroyed, the link is flushed; the HTTP API, to which modules post their last
// statuses, ends after them, and the admin endpoint after that, so that the stop can
// be watched. With a state directory the end suspends the sessions instead, unless its
// cause is ErrFinal. It returns what could not be done in time; everything is released either
// way. Run may be called once.
func (a *App) Run(ctx context.Context) error {
	ctx, a.end = context.WithCancelCause(ctx)
	defer a.end(nil)
	a.ended = func() error { return context.Cause(ctx) }
	if err := a.began.apply(ctx, true); err != nil {
		return errors.Join(err, a.parts.stop())
	}
	cfg := a.Config()
	a.log.Info("serving", "company", cfg.Company, "cars", len(cfg.Cars), "any_car", cfg.AnyCar != nil)
	<-ctx.Done()
	a.sessions.final = errors.Is(context.Cause(ctx), ErrFinal) || a.Config().OnStop == config.OnStopNotify && a.shards == nil
	a.cluster.leave(a.sessions.final)
	if a.sessions.suspend(a.linkTo) {
		a.cars.cause = link.ErrSuspend
	}
	if err := a.parts.stop(); err != nil {
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
func (a *App) Close(context.Context) error { return a.parts.stop() }

// Config returns the configuration in force.
func (a *App) Config() *config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// Cars returns a snapshot of every car, those of the configuration first and in
// its order, then those found by "*" in the order of their names.
func (a *App) Cars() []car.Snapshot { return a.roster.Snapshots() }

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
