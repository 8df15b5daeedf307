package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"external-server/internal/broker"
	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/shards"
	"external-server/internal/logging"
)

// brokerPart is the embedded broker.
type brokerPart struct{ a *App }

func (brokerPart) keys() []string {
	return []string{"EmbeddedBroker.Users", "EmbeddedBroker.Insecure", "EmbeddedBroker.TLS.*"}
}

func (p brokerPart) prepare(_ context.Context, old, fresh *config.Config) (change, error) {
	a, eb := p.a, fresh.EmbeddedBroker
	switch {
	case eb == nil:
		return change{}, nil
	case old != nil && fresh.Limits.Payload > a.brokerPayload:
		return change{}, fmt.Errorf("a restart of the server is needed to change limits.payload_bytes (%d → %d, more than the embedded broker was started for)",
			old.Limits.Payload, fresh.Limits.Payload)
	case old != nil:
		if err := checkFilesOf("embedded_broker.tls", eb.TLS); err != nil {
			return change{}, err
		}
		return change{apply: func(context.Context) error {
			return errors.Join(a.brokerFiles.Use(eb.TLS), a.broker.SetUsers(brokerUsers(fresh)))
		}}, nil
	}
	var err error
	if a.brokerFiles, err = tlsfiles.Watch(eb.TLS); err != nil {
		return change{}, fmt.Errorf("embedded_broker.tls: %w", err)
	}
	a.brokerPayload = largestMessage(fresh)
	b, err := broker.New(broker.Options{
		Listen: eb.Listen, TLS: a.brokerFiles.Config(), Users: brokerUsers(fresh), Logger: component(a.log, logging.ComponentBroker),
		MaxPacket: a.brokerPayload + broker.HeaderRoom, Subscribe: gatewayTopics, Present: a.gateways.present, Hold: true,
	})
	if err != nil {
		return change{}, err
	}
	if err := b.Start(); err != nil {
		return change{}, err
	}
	a.broker = b
	return change{}, nil
}

func (p brokerPart) stop() error {
	if p.a.broker == nil {
		return nil
	}
	return p.a.broker.Close()
}

func brokerUsers(cfg *config.Config) []broker.User {
	users := make([]broker.User, len(cfg.EmbeddedBroker.Users))
	for i, u := range cfg.EmbeddedBroker.Users {
		users[i] = broker.User{Name: u.Name, Password: u.Password.Reveal()}
		if u.Car != "" {
			users[i].Car = fleet.CarID{Company: cfg.Company, Car: u.Car}.String()
		}
	}
	return users
}

// linkPart is the connection to the broker.
type linkPart struct {
	a       *App
	runs    *task
	opens   *task
	address string                      // of the broker
	latest  func() (*tls.Config, error) // nil: no TLS
}

func (*linkPart) keys() []string {
	return []string{"Broker.Username", "Broker.Password", "Broker.TLS.*", "RetryDelay"}
}

func (p *linkPart) prepare(_ context.Context, old, fresh *config.Config) (change, error) {
	a := p.a
	clientTLS, err := tlsfiles.Client(fresh.Broker.TLS)
	if err != nil {
		return change{}, fmt.Errorf("broker.tls: %w", err)
	}
	if old != nil {
		if err := tuning(fresh).Check(); err != nil {
			return change{}, err
		}
		return change{apply: func(context.Context) error {
			if clientTLS != nil {
				a.clientTLS.Store(&clientTLS)
			}
			return a.link.Tune(tuning(fresh))
		}}, nil
	}
	p.address, p.latest = p.broker(fresh, clientTLS)
	if fresh.Cluster != nil {
		a.link = &clusterLink{Link: a.shards}
		return change{apply: p.begin}, tuning(fresh).Check()
	}
	opts := p.options(fresh)
	opts.Connections, opts.Sessions = fresh.Broker.Connections, a.journals.Link(fresh)
	one, err := mqtt.New(opts)
	a.link = one
	return change{apply: p.begin}, err
}

// options are what all links of this server have in common.
func (p *linkPart) options(cfg *config.Config) mqtt.Options {
	tuned := tuning(cfg)
	var dialed func(net.Addr)
	if p.a.broker != nil {
		dialed = p.a.broker.Own
	}
	return mqtt.Options{
		Dialed:     dialed,
		Address:    p.address,
		Username:   tuned.Username,
		Password:   tuned.Password,
		TLS:        p.latest,
		Logger:     component(p.a.log, logging.ComponentLink),
		RetryMax:   tuned.RetryMax,
		MaxPayload: tuned.MaxPayload,
		Presence:   presence(cfg),
	}
}

// carLink is a link with what this package needs beside: that of all cars, or one that
// consists of those of the shards.
type carLink interface {
	link.Link
	link.Stater
	// Tune changes settings, see mqtt.Link.Tune.
	Tune(mqtt.Tuning) error
	// Settled tells, after Run has returned, whether the broker has everything.
	Settled() bool
}

// clusterLink is the link of a server that shares the cars with others.
type clusterLink struct{ *shards.Link }

// Tune implements carLink.
func (l *clusterLink) Tune(t mqtt.Tuning) error {
	var errs []error
	l.Children(func(c shards.Child) { errs = append(errs, c.(*mqtt.Link).Tune(t)) })
	return errors.Join(errs...)
}

// Settled implements carLink. Each shard is asked by itself when it is suspended.
func (l *clusterLink) Settled() bool { return false }

// broker returns where and how the link reaches its broker.
func (p *linkPart) broker(cfg *config.Config, clientTLS func() (*tls.Config, error)) (address string, client func() (*tls.Config, error)) {
	a := p.a
	address = net.JoinHostPort(cfg.Broker.Host, strconv.Itoa(cfg.Broker.Port))
	if clientTLS != nil {
		a.clientTLS.Store(&clientTLS)
		client = a.latestTLS
	}
	if a.broker != nil && (cfg.Broker.Host == "" || address == cfg.EmbeddedBroker.Listen) {
		address = a.broker.Addr().String()
		a.gateways.ours.Store(true)
		if serverTLS := a.brokerFiles.Config(); client == nil && serverTLS != nil {
			client = func() (*tls.Config, error) { return tlsfiles.Pinned(serverTLS), nil }
		}
	}
	return address, client
}

func (p *linkPart) begin(ctx context.Context) error {
	p.opens = begin(ctx, func(ctx context.Context) error {
		p.openBroker(ctx)
		return nil
	})
	p.runs = begin(ctx, func(ctx context.Context) error {
		defer p.a.end(nil) // without link there is nothing to serve
		return p.a.link.Run(ctx)
	})
	return nil
}

// openBroker lets gateways reach the embedded broker when the cars are subscribed there: a
// Connect that is not heard costs a gateway 15 s.
func (p *linkPart) openBroker(ctx context.Context) {
	if p.a.broker == nil {
		return
	}
	defer p.a.broker.Open()
	if !p.a.gateways.ours.Load() {
		return
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(openLimit)
	for slices.ContainsFunc(p.a.link.State().Connections, func(c link.ConnectionState) bool { return !c.Up }) {
		select {
		case <-tick.C:
		case <-late:
			return
		case <-ctx.Done():
			return
		}
	}
}

// openLimit bounds the time after which gateways are let in although the server has not
// reached its own broker.
const openLimit = 10 * time.Second

func (p *linkPart) stop() error { return errors.Join(p.opens.stop(), p.runs.stop()) }

// suspend ends the link before the cars: nothing is heard any more, what was decided
// leaves, and the broker keeps what comes.
func (p *linkPart) suspend() {
	if p.runs != nil {
		p.runs.cancel(link.ErrSuspend)
		<-p.runs.done
	}
}

func tuning(cfg *config.Config) mqtt.Tuning {
	return mqtt.Tuning{Username: cfg.Broker.Username, Password: cfg.Broker.Password.Reveal(), RetryMax: cfg.RetryDelay, MaxPayload: largestMessage(cfg)}
}

func presence(cfg *config.Config) string {
	if !cfg.Presence {
		return ""
	}
	return cfg.Company + fleet.TopicPresence
}

// largestMessage is what link and embedded broker take, in bytes. It is above the
// usual limit of cars, so that it is the car that drops what is too large and its
// operator who sees it.
func largestMessage(cfg *config.Config) int { return max(fleet.DefaultPayload, cfg.Limits.Payload) }

// latestTLS makes the settings of the link's next connection from the files that
// are configured then.
func (a *App) latestTLS() (*tls.Config, error) { return (*a.clientTLS.Load())() }
