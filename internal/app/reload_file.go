package app

import (
	"context"
	"errors"
	"fmt"

	"external-server/internal/config"
	"external-server/internal/tlsfiles"
)

// ReloadFile reads the configuration file again and puts it in force: what
// SIGHUP, the command and the admin endpoint do. A file with an error changes
// nothing; the error says where it is.
func (a *App) ReloadFile(ctx context.Context) (Changes, error) {
	changes, err := a.reloadFile(ctx)
	if err != nil {
		a.log.Error("the configuration was not reloaded", "error", err)
	}
	if a.hub != nil {
		a.hub.Reloaded(changes.String(), err)
	}
	return changes, err
}

func (a *App) reloadFile(ctx context.Context) (Changes, error) {
	if a.load == nil {
		return Changes{}, errors.New("this server was not started from a configuration file")
	}
	cfg, warnings, err := a.load()
	if err != nil {
		return Changes{}, fmt.Errorf("%w; the configuration in force stays unchanged", err)
	}
	if err := checkCertificates(cfg); err != nil {
		return Changes{}, fmt.Errorf("%s: %w; the configuration in force stays unchanged", cfg.Source, err)
	}
	for _, w := range warnings {
		a.log.Warn("configuration: " + w.String())
	}
	return a.Reload(ctx, cfg)
}

// checkCertificates reads every certificate file of the configuration: files
// that were replaced are picked up by themselves, but wrong ones would be noticed
// by the peers first.
func checkCertificates(cfg *config.Config) error {
	if _, err := tlsfiles.Client(cfg.Broker.TLS); err != nil {
		return fmt.Errorf("broker.tls: %w", err)
	}
	for _, of := range []struct {
		key   string
		files *config.ServerTLS
	}{
		{"embedded_broker.tls", serverFiles(cfg.EmbeddedBroker, func(b *config.EmbeddedBroker) *config.ServerTLS { return b.TLS })},
		{"http_api.tls", serverFiles(cfg.HTTPAPI, func(h *config.HTTPAPI) *config.ServerTLS { return h.TLS })},
		{"admin.tls", serverFiles(cfg.Admin, func(a *config.Admin) *config.ServerTLS { return a.TLS })},
	} {
		if _, err := tlsfiles.Server(of.files); err != nil {
			return fmt.Errorf("%s: %w", of.key, err)
		}
	}
	return nil
}

func serverFiles[T any](block *T, files func(*T) *config.ServerTLS) *config.ServerTLS {
	if block == nil {
		return nil
	}
	return files(block)
}
