// Package app builds the server from a configuration and runs its life: New
// does everything that can fail, Run serves until its context ends. Only this
// package knows all the others; tests embed it.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"

	"external-server/internal/broker"
	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/link/mqtt"
	"external-server/internal/session"
)

// Options of New.
type Options struct {
	Config *config.Config
	Logger *slog.Logger
}

// App is a server that was built and waits for Run or Close.
type App struct {
	cfg       *config.Config
	log       *slog.Logger
	libraries *libraries
	broker    *broker.Broker // nil: an external one is used
	link      *mqtt.Link
	cars      []*car.Car
}

// New loads the module libraries, opens one context per car and module, starts
// the embedded broker if there is one, and prepares the link. The external
// broker is not needed yet (CLI-20). A module that fails prevents the start
// (MOD-10, CLI-12). On error nothing is left behind.
func New(ctx context.Context, opts Options) (_ *App, err error) {
	a := &App{cfg: opts.Config, log: opts.Logger, libraries: newLibraries(opts.Logger)}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close(ctx))
		}
	}()
	clientTLS, err := clientTLS(a.cfg.Broker.TLS)
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(a.cfg.Broker.Host, strconv.Itoa(a.cfg.Broker.Port))
	if eb := a.cfg.EmbeddedBroker; eb != nil {
		serverTLS, err := serverTLS(eb.TLS)
		if err != nil {
			return nil, err
		}
		users := make([]broker.User, len(eb.Users))
		for i, u := range eb.Users {
			users[i] = broker.User{Name: u.Name, Password: u.Password.Reveal()}
		}
		b, err := broker.New(broker.Options{Listen: eb.Listen, TLS: serverTLS, Users: users, Logger: a.log})
		if err != nil {
			return nil, err
		}
		if err := b.Start(); err != nil {
			return nil, err
		}
		a.broker = b
		if a.cfg.Broker.Host == "" || address == eb.Listen {
			address = b.Addr().String()
			if clientTLS == nil && serverTLS != nil {
				clientTLS = pinned(serverTLS)
			}
		}
	}
	a.link, err = mqtt.New(mqtt.Options{
		Address:  address,
		Username: a.cfg.Broker.Username,
		Password: a.cfg.Broker.Password.Reveal(),
		TLS:      clientTLS,
		Logger:   a.log,
		RetryMax: a.cfg.RetryDelay,
	})
	if err != nil {
		return nil, err
	}
	for _, cc := range a.cfg.Cars {
		if err := a.addCar(ctx, cc); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *App) addCar(ctx context.Context, cc config.Car) error {
	id := fleet.CarID{Company: a.cfg.Company, Car: cc.Name}
	var bindings []car.Binding
	fail := func(err error) error {
		for _, b := range bindings {
			err = errors.Join(err, b.Instance.Close(ctx))
		}
		return err
	}
	for _, m := range cc.Modules {
		b, err := a.libraries.bind(ctx, id, m)
		if err != nil {
			return fail(err)
		}
		bindings = append(bindings, b)
	}
	c, err := car.New(car.Options{
		ID: id,
		Session: session.Options{
			MessageTimeout:     a.cfg.MessageTimeout,
			SessionTimeout:     a.cfg.SessionTimeout,
			SendInvalidCommand: a.cfg.SendInvalidCommand,
			MaxAhead:           a.cfg.Limits.StatusesAhead,
		},
		Modules:     bindings,
		QueueSize:   a.cfg.Limits.ModuleQueue,
		StopTimeout: a.cfg.Limits.Stop,
		Logger:      a.log,
	})
	if err != nil {
		return fail(err)
	}
	a.cars = append(a.cars, c)
	return nil
}

// Run serves all cars until ctx ends, then stops in the order of CLI-24: the
// gateways are notified, the modules see their devices disconnected and are
// destroyed, the link is flushed. It returns what could not be done in time;
// everything is released either way. Run may be called once.
func (a *App) Run(ctx context.Context) error {
	linkCtx, stopLink := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLink()
	var linkErr error
	var link, cars sync.WaitGroup
	carsCtx, stopCars := context.WithCancel(ctx)
	defer stopCars()
	errs := make([]error, len(a.cars))
	for _, c := range a.cars {
		if err := c.Attach(a.link); err != nil {
			return errors.Join(err, a.Close(ctx))
		}
	}
	link.Go(func() {
		linkErr = a.link.Run(linkCtx)
		stopCars() // without link there is nothing to serve
	})
	for i, c := range a.cars {
		cars.Go(func() { errs[i] = c.Run(carsCtx) })
	}
	a.log.Info("serving", "company", a.cfg.Company, "cars", len(a.cars))
	cars.Wait()
	stopLink()
	link.Wait()
	errs = append(errs, linkErr, a.release())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	a.log.Info("stopped")
	return nil
}

// Close releases an App whose Run was never called.
func (a *App) Close(ctx context.Context) error { return a.close(ctx) }

func (a *App) close(ctx context.Context) error {
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	var errs []error
	for _, c := range a.cars {
		errs = append(errs, c.Close(stopped))
	}
	return errors.Join(append(errs, a.release())...)
}

func (a *App) release() error {
	var errs []error
	if a.broker != nil {
		errs = append(errs, a.broker.Close())
	}
	return errors.Join(append(errs, a.libraries.close())...)
}

// Cars returns a snapshot of every car in the order of configuration.
func (a *App) Cars() []car.Snapshot {
	out := make([]car.Snapshot, len(a.cars))
	for i, c := range a.cars {
		out[i] = c.Snapshot()
	}
	return out
}

// BrokerAddr is the address of the embedded broker, or nil without one.
func (a *App) BrokerAddr() net.Addr {
	if a.broker == nil {
		return nil
	}
	return a.broker.Addr()
}

// LinkUp tells whether the broker is connected.
func (a *App) LinkUp() bool { return a.link.State().Up }
