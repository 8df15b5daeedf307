package app

import (
	"cmp"
	"context"
	"net"
	"time"

	"external-server/internal/app/replica"
	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/logging"
	"external-server/internal/peer"
)

// peersPart is the address for the other replicas, and the client that asks them.
type peersPart struct {
	a      *App
	server *peer.Server // nil: there is no cluster
	client *peer.Client
	owners *replica.Owners
	serves *task
}

func (*peersPart) keys() []string { return nil } // files that were replaced are read anew

func (p *peersPart) prepare(ctx context.Context, old, fresh *config.Config) (change, error) {
	c := fresh.Cluster
	if c == nil || old != nil {
		return change{}, nil
	}
	p.owners = replica.NewOwners(c.Shards)
	opts := peer.Options{Replica: c.Replica, TLS: peerTLS(c), Token: c.PeerToken, Logger: component(p.a.log, logging.ComponentHTTP)}
	if opts.TLS != nil { // new files may come while this server runs
		host, _, _ := net.SplitHostPort(cmp.Or(c.PeerAddress, c.PeerListen)) // was checked
		if err := tlsfiles.Mutual(opts.TLS, host, time.Now()); err != nil {
			opts.Logger.Warn("the other replicas will refuse this one", "key", "cluster.peer_tls", "reason", err)
		}
	}
	var err error
	if p.client, err = peer.NewClient(opts); err != nil {
		return change{}, err
	}
	if p.server, err = peer.Listen(ctx, c.PeerListen, opts); err != nil {
		return change{}, err
	}
	return change{apply: func(ctx context.Context) error {
		p.serves = begin(ctx, func(ctx context.Context) error {
			err := p.server.Run(ctx)
			p.a.endedEarly(ctx, "the address for other replicas", err)
			return err
		})
		return nil
	}}, nil
}

func peerTLS(c *config.Cluster) *config.TLS {
	if c.PeerTLS == nil {
		return nil
	}
	return &config.TLS{CAFile: c.PeerTLS.CAFile, CertFile: c.PeerTLS.CertFile, KeyFile: c.PeerTLS.KeyFile}
}

// address is where the other replicas reach this one.
func (p *peersPart) address(c *config.Cluster) string {
	if c.PeerAddress != "" {
		return c.PeerAddress
	}
	return p.server.Addr().String()
}

func (p *peersPart) stop() error {
	if p.server == nil {
		return nil
	}
	defer p.client.Close()
	if p.serves == nil {
		return p.server.Close()
	}
	return p.serves.stop()
}
