package check

import "external-server/internal/config"

// listenerFiles are the certificate files of a listener, nil: none, and their key.
type listenerFiles struct {
	key   string
	files *config.ServerTLS
}

func listeners(cfg *config.Config) []listenerFiles {
	return []listenerFiles{
		{"embedded_broker.tls", serverFiles(cfg.EmbeddedBroker, func(b *config.EmbeddedBroker) *config.ServerTLS { return b.TLS })},
		{"http_api.tls", serverFiles(cfg.HTTPAPI, func(h *config.HTTPAPI) *config.ServerTLS { return h.TLS })},
		{"admin.tls", serverFiles(cfg.Admin, func(a *config.Admin) *config.ServerTLS { return a.TLS })},
	}
}

func serverFiles[T any](block *T, files func(*T) *config.ServerTLS) *config.ServerTLS {
	if block == nil {
		return nil
	}
	return files(block)
}
