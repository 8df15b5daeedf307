package app

import (
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
)

// restartKeys are the settings that a reload refuses to change. docs/operations.md says
// so.
var restartKeys = []string{
	"company_name", "presence", "state_directory", "state_sync", "external_communication.client_id",
	"external_communication.server_address", "external_communication.server_port", "external_communication.connections", "external_communication.tls",
	"embedded_broker", "embedded_broker.listen", "embedded_broker.tls",
	"http_api", "http_api.listen", "http_api.tls", "http_api.store", "http_api.keys_file",
	"admin", "admin.listen", "admin.tls",
	"cluster", "cluster.etcd", "cluster.username", "cluster.password", "cluster.tls", "cluster.tls.ca_file", "cluster.tls.cert_file", "cluster.tls.key_file",
	"cluster.name", "cluster.replica", "cluster.peer_listen", "cluster.peer_address", "cluster.peer_tls", "cluster.peer_tls.ca_file", "cluster.peer_tls.cert_file",
	"cluster.peer_tls.key_file", "cluster.peer_token", "cluster.shards", "cluster.lease_ms",
	"tracing", "tracing.endpoint", "tracing.sample_ratio",
	"logging.console.use", "logging.console.format", "logging.console.path", "logging.console.max_size_bytes", "logging.console.files_to_keep",
	"logging.file.use", "logging.file.format", "logging.file.path", "logging.file.max_size_bytes", "logging.file.files_to_keep",
}

// fields calls do with the path of every field of a configuration: those with a value,
// and the blocks that may be absent.
func fields(path string, t reflect.Type, do func(path string, t reflect.Type)) {
	switch {
	case t.Kind() == reflect.Pointer:
		do(path, t)
		fields(path, t.Elem(), do)
	case t.Kind() == reflect.Struct && t != secretType:
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				fields(below(path, f.Name), f.Type, do)
			}
		}
	default:
		do(path, t)
	}
}

func (a *App) appliedKeys() []string { return append(a.parts.keys(), noSettings...) }

// TestEveryKeyIsAppliedOrNeedsARestart: a setting is put in force by a part, or the
// reload refuses to change it. None is both, and none is neither: a new one must be
// decided about.
func TestEveryKeyIsAppliedOrNeedsARestart(t *testing.T) {
	a := newServer(t, idleModule{}).App
	defer func() {
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	applied := a.appliedKeys()
	var all, restart []string
	fields("", reflect.TypeFor[config.Config](), func(path string, _ reflect.Type) {
		all = append(all, path)
		if !covers(applied, path) {
			restart = append(restart, keyName(path))
		}
	})
	for _, key := range restart {
		if !slices.Contains(restartKeys, key) {
			t.Errorf("%s: no part applies it, and it is not among those that need a restart", key)
		}
	}
	for _, key := range restartKeys {
		if !slices.Contains(restart, key) {
			t.Errorf("%s: needs no restart, or does not exist", key)
		}
	}
	for _, p := range applied {
		if !slices.ContainsFunc(all, func(path string) bool { return covers([]string{p}, path) }) {
			t.Errorf("a part applies %s, which does not exist", p)
		}
	}
	schema, err := os.ReadFile("../config/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range restartKeys {
		for name := range strings.SplitSeq(key, ".") {
			if !strings.Contains(string(schema), `"`+name+`"`) {
				t.Errorf("%s: the schema has no key %s", key, name)
			}
		}
	}
}

// TestChangedKeyNeedsARestart: each such setting, changed alone, is named, with its
// values unless they are secret; a setting that a part applies is not.
func TestChangedKeyNeedsARestart(t *testing.T) {
	a := newServer(t, idleModule{}).App
	defer func() {
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	applied := a.appliedKeys()
	fields("", reflect.TypeFor[config.Config](), func(path string, _ reflect.Type) {
		full := func() *config.Config {
			return &config.Config{AnyCar: &config.Car{}, HTTPAPI: &config.HTTPAPI{TLS: &config.ServerTLS{}}, Tracing: &config.Tracing{},
				Admin: &config.Admin{TLS: &config.ServerTLS{}}, EmbeddedBroker: &config.EmbeddedBroker{TLS: &config.ServerTLS{}},
				Cluster: &config.Cluster{TLS: &config.TLS{}, PeerTLS: &config.PeerTLS{}}, Broker: config.Broker{TLS: &config.TLS{}}}
		}
		old, fresh := full(), full()
		alter(t, fresh, path)
		keys := needRestart(old, fresh, a.parts.keys())
		if covers(applied, path) {
			if len(keys) > 0 {
				t.Errorf("%s is applied, and refused: %q", path, keys)
			}
			return
		}
		if len(keys) != 1 || keys[0] != keyName(path) && !strings.HasPrefix(keys[0], keyName(path)+" (") {
			t.Errorf("%s was changed, and the keys are %q", path, keys)
		}
		if strings.Contains(strings.Join(keys, ""), "changed-secret") {
			t.Errorf("a secret is shown: %q", keys)
		}
	})
}

// alter gives the field at path another value.
func alter(t *testing.T, cfg *config.Config, path string) {
	t.Helper()
	v := reflect.ValueOf(cfg).Elem()
	for name := range strings.SplitSeq(path, ".") {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		v = v.FieldByName(name)
	}
	switch {
	case v.Type() == secretType:
		v.Set(reflect.ValueOf(config.NewSecret("changed-secret")))
	case v.Kind() == reflect.Pointer:
		v.SetZero()
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case v.Kind() == reflect.String:
		v.SetString("changed")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(int64(time.Second))
	case v.CanFloat():
		v.SetFloat(0.5)
	default:
		t.Fatalf("%s is a %v, which this test cannot change", path, v.Type())
	}
}

// TestReloadNamesWhatNeedsARestart is the same by a reload, which changes nothing then.
func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	s := startServer(t, idleModule{})
	fresh := *s.load(1)
	fresh.Company, fresh.Logging.Console.Level = "other", slog.LevelError
	_, err := s.Reload(t.Context(), &fresh)
	if want := `a restart of the server is needed to change company_name ("company" → "other"); the configuration in force stays unchanged`; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v does not end with %s", err, want)
	}
	if s.Config().Company != "company" {
		t.Error("another configuration is in force")
	}
}
