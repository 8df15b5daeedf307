package check

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/cluster/etcd"
	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
)

// checkTime bounds the questions of a check to etcd.
const checkTime = 3 * time.Second

// checkCluster asks etcd what a start would ask, and writes nothing. That etcd does not
// answer is a warning: it may not run yet.
func (r *Report) checkCluster(ctx context.Context, cfg *config.Config) {
	c := cfg.Cluster
	secure, err := tlsfiles.Client(c.TLS)
	if err != nil {
		return // told as a problem of the file
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	err = etcd.Check(ctx, etcd.Options{
		Endpoints: c.Etcd, Username: c.Username, Password: c.Password.Reveal(), TLS: secure,
		Cluster: c.Name, Shards: c.Shards, Lease: c.Lease, Self: cluster.Member{Name: c.Replica}, Log: slog.New(slog.DiscardHandler),
	})
	var settings *etcd.SettingsError
	switch {
	case errors.As(err, &settings):
		r.Problems = append(r.Problems, cfg.Problem("cluster.shards", err.Error()))
	case err != nil:
		r.Warnings = append(r.Warnings, cfg.Problem("cluster.etcd", err.Error()).String())
	}
}
