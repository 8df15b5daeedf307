package app

import (
	"crypto/tls"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"external-server/internal/broker"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/link/mqtt"
	"external-server/internal/tlsfiles"
)

// prepare finds out whether the settings that are not about single cars can be put
// in force, and changes nothing.
func (a *App) prepare(old, fresh *config.Config) error {
	keys := needRestart(old, fresh)
	if most := largestMessage(old); fresh.EmbeddedBroker != nil && fresh.Limits.Payload > most {
		keys = append(keys, fmt.Sprintf("limits.payload_bytes (%d → %d, more than the embedded broker was started for)", old.Limits.Payload, fresh.Limits.Payload))
	}
	if len(keys) > 0 {
		return errors.New("a restart of the server is needed to change " + strings.Join(keys, ", "))
	}
	return errors.Join(checkCertificates(fresh), tuning(fresh).Check())
}

// configure puts them in force, while everything goes on. What may fail has been
// tried by prepare; files that were replaced since are reported, the old ones stay.
func (a *App) configure(cfg *config.Config) {
	errs := []error{a.link.Tune(tuning(cfg))}
	clientTLS, err := tlsfiles.Client(cfg.Broker.TLS)
	if err == nil && clientTLS != nil {
		a.clientTLS.Store(&clientTLS)
	}
	errs = append(errs, err)
	if a.broker != nil && cfg.EmbeddedBroker != nil {
		errs = append(errs, a.brokerFiles.Use(cfg.EmbeddedBroker.TLS), a.broker.SetUsers(brokerUsers(cfg)))
	}
	if a.api != nil && cfg.HTTPAPI != nil {
		errs = append(errs, a.api.Configure(*cfg.HTTPAPI))
	}
	if a.admin != nil && cfg.Admin != nil {
		errs = append(errs, a.admin.Configure(*cfg.Admin))
		a.hub.SetPerCar(cfg.Admin.PerCarMetrics)
	}
	if err := errors.Join(errs...); err != nil {
		a.log.Warn("a part of the new configuration is not in force; reload again", "error", err)
	}
}

func tuning(cfg *config.Config) mqtt.Tuning {
	return mqtt.Tuning{Username: cfg.Broker.Username, Password: cfg.Broker.Password.Reveal(), RetryMax: cfg.RetryDelay, MaxPayload: largestMessage(cfg)}
}

// largestMessage is what link and embedded broker take, in bytes. It is above the
// usual limit of cars, so that it is the car that drops what is too large and its
// operator who sees it.
func largestMessage(cfg *config.Config) int { return max(4<<20, cfg.Limits.Payload) }

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

// latestTLS makes the settings of the link's next connection from the files that
// are configured then.
func (a *App) latestTLS() (*tls.Config, error) { return (*a.clientTLS.Load())() }

// needRestart names the settings that differ and are bound at the start, with their
// values unless these may be secret. The broker's keys are those of format D.
func needRestart(old, fresh *config.Config) []string {
	var keys []string
	value := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			keys = append(keys, fmt.Sprintf("%s (%s → %s)", key, shown(a), shown(b)))
		}
	}
	present := func(key string, a, b bool) (both bool) {
		if a != b {
			keys = append(keys, key+map[bool]string{true: " (added)", false: " (removed)"}[b])
		}
		return a && b
	}
	value("company_name", old.Company, fresh.Company)
	value("presence", old.Presence, fresh.Presence)
	value("external_communication.server_address", old.Broker.Host, fresh.Broker.Host)
	value("external_communication.server_port", old.Broker.Port, fresh.Broker.Port)
	value("external_communication.connections", old.Broker.Connections, fresh.Broker.Connections)
	value("external_communication.tls", old.Broker.TLS != nil, fresh.Broker.TLS != nil)
	if present("embedded_broker", old.EmbeddedBroker != nil, fresh.EmbeddedBroker != nil) {
		value("embedded_broker.listen", old.EmbeddedBroker.Listen, fresh.EmbeddedBroker.Listen)
		present("embedded_broker.tls", old.EmbeddedBroker.TLS != nil, fresh.EmbeddedBroker.TLS != nil)
	}
	if present("http_api", old.HTTPAPI != nil, fresh.HTTPAPI != nil) {
		value("http_api.listen", old.HTTPAPI.Listen, fresh.HTTPAPI.Listen)
		value("http_api.keys_file", old.HTTPAPI.KeysFile, fresh.HTTPAPI.KeysFile)
		present("http_api.tls", old.HTTPAPI.TLS != nil, fresh.HTTPAPI.TLS != nil)
		if old.HTTPAPI.Store.Reveal() != fresh.HTTPAPI.Store.Reveal() {
			keys = append(keys, "http_api.store")
		}
	}
	if present("admin", old.Admin != nil, fresh.Admin != nil) {
		value("admin.listen", old.Admin.Listen, fresh.Admin.Listen)
		present("admin.tls", old.Admin.TLS != nil, fresh.Admin.TLS != nil)
	}
	if present("tracing", old.Tracing != nil, fresh.Tracing != nil) {
		value("tracing.endpoint", old.Tracing.Endpoint, fresh.Tracing.Endpoint)
		value("tracing.sample_ratio", old.Tracing.SampleRatio, fresh.Tracing.SampleRatio)
	}
	for _, s := range []struct {
		name string
		a, b config.Sink
	}{{"console", old.Logging.Console, fresh.Logging.Console}, {"file", old.Logging.File, fresh.Logging.File}} {
		value("logging."+s.name+".use", s.a.Use, s.b.Use)
		value("logging."+s.name+".format", s.a.Format, s.b.Format)
		value("logging."+s.name+".path", s.a.Path, s.b.Path)
		value("logging."+s.name+".max_size_bytes", s.a.MaxBytes, s.b.MaxBytes)
		value("logging."+s.name+".files_to_keep", s.a.Keep, s.b.Keep)
	}
	return keys
}

func shown(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}

// checkCertificates reads every certificate file of the configuration: files
// that were replaced are picked up by themselves, but wrong ones would be noticed
// by the peers first.
func checkCertificates(cfg *config.Config) error {
	if _, err := tlsfiles.Client(cfg.Broker.TLS); err != nil {
		return fmt.Errorf("broker.tls: %w", err)
	}
	for _, of := range listeners(cfg) {
		if _, err := tlsfiles.Server(of.files); err != nil {
			return fmt.Errorf("%s: %w", of.key, err)
		}
	}
	return nil
}

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
