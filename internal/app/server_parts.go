package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"external-server/internal/admin"
	"external-server/internal/app/replica"
	"external-server/internal/app/roster"
	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	apiserver "external-server/internal/httpapi/server"
	"external-server/internal/logging"
	"external-server/internal/observe"
	"external-server/internal/peer"
)

// list returns the parts of the server, from the bottom up.
func (a *App) list() parts {
	a.cars, a.linkTo, a.sessions = &carsPart{a: a}, &linkPart{a: a}, &sessionsPart{a: a}
	a.peers, a.cluster = &peersPart{a: a}, &clusterPart{a: a}
	return parts{
		{"logging", logsPart{a}, loggingStopLimit},
		{"the embedded broker", brokerPart{a}, brokerStopLimit}, // gateways notice how long it is away: it ends late and begins early
		{"the modules", modulesPart{a}, modulesStopLimit},
		{"the observation", &observingPart{a: a}, observingStopLimit},
		{"the configuration file", &filePart{a: a}, fileStopLimit},
		{"the address for other replicas", a.peers, peersStopLimit},
		{"the admin endpoint", &adminPart{a: a}, adminStopLimit},
		{"the HTTP API", &apiPart{a: a}, apiStopLimit},
		{"the state directory", a.sessions, sessionsStopLimit},
		{"the cluster", a.cluster, clusterStopLimit},
		{"the connection to the broker", a.linkTo, linkStopLimit},
		{"the cars", a.cars, carsStopLimit + a.cfg.Limits.Stop},
	}
}

// logsPart is the log, which the caller of New has opened.
type logsPart struct{ a *App }

func (logsPart) keys() []string { return []string{"Logging.Console.Level", "Logging.File.Level"} }
func (logsPart) stop() error    { return nil }

func (p logsPart) prepare(_ context.Context, old, fresh *config.Config) (change, error) {
	if old == nil || p.a.logs == nil {
		return change{}, nil
	}
	return change{apply: func(context.Context) error {
		p.a.logs.SetSinkLevels(fresh.Logging.Console.Level, fresh.Logging.File.Level)
		return nil
	}}, nil
}

// modulesPart are the modules, which are made when a car asks for one.
type modulesPart struct{ a *App }

func (modulesPart) keys() []string { return nil } // they are a car's
func (p modulesPart) stop() error  { return p.a.modules.Close() }

func (p modulesPart) prepare(_ context.Context, old, fresh *config.Config) (change, error) {
	if old == nil {
		return change{}, nil
	}
	return change{
		apply: func(context.Context) error {
			if err := p.a.modules.CloseUnused(fresh); err != nil {
				p.a.log.Warn("modules that are no longer used did not end cleanly", "error", err)
			}
			return nil
		},
		drop: func() error { return p.a.modules.CloseUnused(old) },
	}, nil
}

// observingPart is the hub, when somebody looks at it: without admin endpoint and
// tracing, cars are not observed and pay nothing.
type observingPart struct {
	a     *App
	watch *task
}

func (*observingPart) keys() []string { return []string{"Admin.PerCarMetrics"} }

func (p *observingPart) prepare(_ context.Context, old, fresh *config.Config) (change, error) {
	a := p.a
	if old != nil {
		if a.hub == nil || fresh.Admin == nil {
			return change{}, nil
		}
		return change{apply: func(context.Context) error {
			a.hub.SetPerCar(fresh.Admin.PerCarMetrics)
			return nil
		}}, nil
	}
	if fresh.Admin == nil && fresh.Tracing == nil {
		return change{}, nil
	}
	opts := observe.Options{Version: a.version, Logger: component(a.log, logging.ComponentAdmin), Sources: a.sources()}
	if fresh.Admin != nil {
		opts.PerCar = fresh.Admin.PerCarMetrics
	}
	if t := fresh.Tracing; t != nil {
		opts.Tracing = &observe.Tracing{Endpoint: t.Endpoint, SampleRatio: t.SampleRatio}
	}
	var err error
	if a.hub, err = observe.New(opts); err != nil {
		return change{}, err
	}
	return change{apply: func(ctx context.Context) error {
		p.watch = begin(ctx, func(ctx context.Context) error {
			a.hub.Watch(ctx)
			return nil
		})
		return nil
	}}, nil
}

func (p *observingPart) stop() error {
	err := p.watch.stop()
	if p.a.hub == nil {
		return err
	}
	// Traces that wait are exported, or given up.
	bound, cancel := context.WithTimeout(context.Background(), tracesTimeout)
	defer cancel()
	if err := p.a.hub.Close(bound); err != nil {
		p.a.log.Warn("traces that waited were not exported", "error", err)
	}
	return err
}

// tracesTimeout bounds the last export of traces.
const tracesTimeout = time.Second

// adminPart is the admin endpoint.
type adminPart struct {
	a      *App
	serves *task
}

func (*adminPart) keys() []string {
	return []string{"Admin.Tokens", "Admin.TLS.*", "Admin.Insecure", "Admin.MapTiles", "Admin.MapAttribution", "Admin.MapMaxZoom"}
}

func (p *adminPart) prepare(_ context.Context, old, fresh *config.Config) (change, error) {
	a := p.a
	switch {
	case fresh.Admin == nil:
		return change{}, nil
	case old != nil:
		if err := checkFilesOf("admin.tls", fresh.Admin.TLS); err != nil {
			return change{}, err
		}
		return change{apply: func(context.Context) error { return a.admin.Configure(*fresh.Admin) }}, nil
	}
	opts := admin.Options{
		Config: *fresh.Admin, Source: operator{a}, Hub: a.hub, Version: a.version, Logger: component(a.log, logging.ComponentAdmin),
	}
	if fresh.Cluster != nil {
		opts.Cluster = replica.Operators{Owners: a.peers.owners, Company: fresh.Company, Client: a.peers.client}
	}
	var err error
	if a.admin, err = admin.New(opts); err != nil {
		return change{}, err
	}
	if fresh.Cluster != nil {
		a.peers.server.HandleWithin(admin.PeerPrefix+"/", peer.Limits{Body: admin.PeerBody, Requests: admin.PeerRequests}, a.admin.PeerHandler())
	}
	return change{apply: func(ctx context.Context) error {
		p.serves = begin(ctx, func(ctx context.Context) error {
			err := a.admin.Run(ctx)
			a.endedEarly(ctx, "the admin endpoint", err)
			return err
		})
		return nil
	}}, nil
}

func (p *adminPart) stop() error {
	if p.serves == nil && p.a.admin != nil {
		return p.a.admin.Close()
	}
	return p.serves.stop()
}

// apiPart is the embedded HTTP API.
type apiPart struct {
	a      *App
	serves *task
}

func (*apiPart) keys() []string {
	return []string{"HTTPAPI.Retention", "HTTPAPI.WaitTimeout", "HTTPAPI.MaxCars", "HTTPAPI.TLS.*"}
}

func (p *apiPart) prepare(ctx context.Context, old, fresh *config.Config) (change, error) {
	a := p.a
	switch {
	case fresh.HTTPAPI == nil:
		return change{}, nil
	case old != nil:
		if err := checkFilesOf("http_api.tls", fresh.HTTPAPI.TLS); err != nil {
			return change{}, err
		}
		return change{apply: func(context.Context) error { return a.api.Configure(*fresh.HTTPAPI) }}, nil
	}
	opts := apiserver.Options{Config: *fresh.HTTPAPI, Logger: component(a.log, logging.ComponentHTTP)}
	if c := fresh.Cluster; c != nil {
		opts.Cluster = &apiserver.Cluster{Replica: c.Replica, Owners: a.peers.owners, Peers: a.peers.client}
	}
	api, err := apiserver.New(ctx, opts)
	if err != nil {
		return change{}, err
	}
	if fresh.Cluster != nil {
		a.peers.server.HandleWithin(apiserver.PeerPrefix+"/", peer.Limits{Body: apiserver.PeerBody, Requests: apiserver.PeerRequests}, api.PeerHandler())
	}
	a.api = api
	return change{apply: func(ctx context.Context) error {
		p.serves = begin(ctx, func(ctx context.Context) error {
			err := api.Run(ctx)
			a.endedEarly(ctx, "the HTTP API", err)
			return err
		})
		return nil
	}}, nil
}

func (p *apiPart) stop() error {
	if p.serves == nil && p.a.api != nil {
		bound, cancel := context.WithTimeout(context.Background(), unusedAPITimeout)
		defer cancel()
		return p.a.api.Shutdown(bound)
	}
	return p.serves.stop()
}

// unusedAPITimeout bounds the end of an HTTP API that was never served.
const unusedAPITimeout = time.Second

// carsPart are the cars.
type carsPart struct {
	a     *App
	end   context.CancelCauseFunc // of their context; nil: not begun
	cause error                   // of the end
	gone  *task                   // ends the sessions of gateways that have left
	last  roster.Changes          // of the last reload
}

func (*carsPart) keys() []string {
	return []string{"Cars", "AnyCar", "AnyCar.*", "MessageTimeout", "SessionTimeout", "SendInvalidCommand", "Limits.*"}
}

func (p *carsPart) prepare(ctx context.Context, old, fresh *config.Config) (change, error) {
	a := p.a
	if old == nil {
		opts := roster.Options{Config: fresh, Logger: a.log, Modules: a.modules, Journals: a.journals, Link: a.link, Hub: a.hub}
		if a.linkOfCars != nil {
			opts.Link = a.linkOfCars(a.link)
		}
		if r := a.cluster.replica; r != nil {
			opts.Elsewhere = r.Elsewhere
		}
		a.roster = roster.New(opts)
		return change{apply: p.begin}, a.roster.Load(ctx)
	}
	made, err := a.roster.Prepare(ctx, fresh, a.waits.within)
	if err != nil {
		return change{}, err
	}
	return change{
		apply: func(ctx context.Context) error {
			p.last = made.Changes
			return a.roster.Apply(ctx, made)
		},
		drop: made.Drop,
	}, nil
}

// begin serves the cars until the context that Run was given ends.
func (p *carsPart) begin(ctx context.Context) error {
	ctx, p.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := p.a.roster.Start(ctx); err != nil {
		return err
	}
	p.a.journals.ForgetAllUnserved()
	p.gone = begin(ctx, func(ctx context.Context) error {
		p.a.gateways.watch(ctx, p.a.gatewayGone)
		return nil
	})
	return nil
}

func (p *carsPart) stop() error {
	if p.a.roster == nil { // the start has not come that far
		return nil
	}
	if p.end == nil {
		return p.a.roster.Discard()
	}
	p.a.modules.Retire()
	p.end(p.cause)
	err := errors.Join(p.gone.stop(), p.a.roster.Stop())
	if p.cause != nil && p.a.link.Settled() {
		p.a.roster.Settle()
	}
	return errors.Join(err, p.a.roster.Discard())
}

// checkFilesOf reads the certificate files of a listener: files that were replaced are
// picked up by themselves, but wrong ones would be noticed by the peers first.
func checkFilesOf(key string, files *config.ServerTLS) error {
	if _, err := tlsfiles.Server(files); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
