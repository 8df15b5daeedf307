package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// planted is a configuration full of secrets that contain the word planted.
func planted() *Config {
	secret := NewSecret("planted")
	m := Module{Number: 1, Builtin: BuiltinMission, Config: []Pair{{Key: "api_key", Value: secret}}}
	return &Config{
		Broker:         Broker{Username: "u", Password: secret},
		EmbeddedBroker: &EmbeddedBroker{Users: []User{{"u", secret, "v"}}},
		Cars:           []Car{{Name: "v", Modules: []Module{m}}},
		AnyCar:         &Car{Name: AnyCarName, Modules: []Module{m}},
		HTTPAPI:        &HTTPAPI{Store: NewSecret("postgres://u:planted@h/d")},
		Admin:          &Admin{Tokens: []Token{{Name: "n", Role: RoleRead, Token: secret}}},
		Cluster:        &Cluster{Username: "u", Password: secret, PeerToken: secret},
	}
}

// TestNothingPrintsSecrets tries every verb, JSON and both slog handlers on the
// configuration and on each of its parts.
func TestNothingPrintsSecrets(t *testing.T) {
	cfg := planted()
	values := []any{
		cfg, *cfg, cfg.Broker, &cfg.Broker, cfg.Broker.Password, &cfg.Broker.Password, cfg.EmbeddedBroker, *cfg.EmbeddedBroker, cfg.EmbeddedBroker.Users,
		cfg.Cars, cfg.Cars[0], &cfg.Cars[0], cfg.Cars[0].Modules, cfg.Cars[0].Modules[0], &cfg.Cars[0].Modules[0], cfg.AnyCar, *cfg.AnyCar,
		cfg.HTTPAPI, *cfg.HTTPAPI, cfg.Admin, *cfg.Admin, cfg.Admin.Tokens, cfg.Cluster, *cfg.Cluster, cfg.Redacted(), map[string]any{"k": cfg.Broker}, struct{ c *Config }{cfg}, struct{ Cfg *Config }{cfg}, struct{ car Car }{cfg.Cars[0]},
	}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x", "%10.3v"} {
			check(t, fmt.Sprintf("%T with %s", v, verb), fmt.Sprintf(verb, v))
		}
		raw, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%T: %v", v, err)
		}
		check(t, fmt.Sprintf("JSON of %T", v), string(raw))
		var out bytes.Buffer
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("x", "value", v, slog.Group("g", "value", v))
		}
		check(t, fmt.Sprintf("slog of %T", v), out.String())
	}
	check(t, "an error", fmt.Errorf("%w, %v", Errors{{Text: "x"}}, cfg).Error())
}

func check(t *testing.T, what, text string) {
	t.Helper()
	for _, form := range []string{"planted", fmt.Sprintf("%x", "planted"), fmt.Sprintf("%X", "planted"), "112 108 97"} {
		if strings.Contains(text, form) {
			t.Errorf("%s prints a secret: %s", what, text)
		}
	}
}

func TestSecret(t *testing.T) {
	if got := fmt.Sprintf("%v %s %q", NewSecret("x"), NewSecret("x"), NewSecret("")); got != "HIDDEN HIDDEN " {
		t.Error(got)
	}
	if NewSecret("x").Reveal() != "x" || NewSecret("x").IsZero() || !NewSecret("").IsZero() {
		t.Error("Reveal or IsZero")
	}
}

// TestRedacted shows what an operator sees of the configuration in force.
func TestRedacted(t *testing.T) {
	workdir(t)
	cfg, _ := mustLoad(t, `{"company_name": "c", "car_name": "v", "mqtt_address": "h", "mqtt_username": "u", "mqtt_password": "planted",
		"modules": {"5": {"lib_path": "lib.so", "config": {"api_key": "planted", "api_url": "http://<planted>"}}}}`)
	const want = `{
  "company_name": "c",
  "external_communication": {
    "protocol": "MQTT",
    "server_address": "h",
    "server_port": 1883,
    "timeout_ms": 30000,
    "tls": false,
    "username": "u",
    "password": "HIDDEN",
    "connections": 0
  },
  "timeout": 5,
  "send_invalid_command": false,
  "sleep_duration_after_connection_refused": 1,
  "common_modules": {
    "5": {
      "lib_path": "lib.so",
      "isolation": "process",
      "config": "HIDDEN",
      "timeout_ms": 1000,
      "memory_limit_mb": 0,
      "answer": "queued",
      "max_restarts": 10,
      "call_timeout_ms": 60000
    }
  },
  "cars": {
    "v": {}
  },
  "logging": {
    "console": {
      "level": "INFO",
      "use": true,
      "format": "text"
    },
    "file": {
      "level": "INFO",
      "use": false,
      "format": "text",
      "path": "",
      "max_size_bytes": 10485760,
      "files_to_keep": 5
    }
  },
  "limits": {
    "statuses_ahead": 1000,
    "module_queue": 1000,
    "stop_timeout_ms": 3500,
    "payload_bytes": 1048576,
    "messages_per_second": 0,
    "message_burst": 0,
    "idle_car_s": 600,
    "any_cars": 10000,
    "admission_timeout_ms": 2000
  },
  "presence": false
}`
	if got := cfg.Redacted().String(); got != want {
		t.Error(got)
	}
}

// The line of the log stays short however many cars and users there are: cars with
// the same settings are one entry.
func TestLineIsBrief(t *testing.T) {
	workdir(t)
	var cars []string
	users := []string{`{"name": "server", "password": "planted"}`}
	for i := range 500 {
		module := ""
		if i%100 >= 85 { // modules of their own
			module = fmt.Sprintf(`"specific_modules": {"%d": {"lib_path": "lib.so", "config": {"k": "planted"}}}`, 100+i)
		}
		cars = append(cars, fmt.Sprintf(`"car_%d": {%s}`, i, module))
		users = append(users, fmt.Sprintf(`{"name": "u%d", "password": "planted", "car": "car_%d"}`, i, i))
	}
	cfg, _ := mustLoad(t, `{"company_name": "c", "embedded_broker": {"users": [`+strings.Join(users, ",")+`]},
		"common_modules": {"5": {"lib_path": "lib.so", "config": {}}}, "cars": {`+strings.Join(cars, ",")+`}}`)
	line := cfg.Redacted().Line()
	if len(line) > 4000 || strings.Contains(line, "planted") || strings.ContainsAny(line, "\n\\") {
		t.Errorf("a line of %d characters: %.500s", len(line), line)
	}
	for _, want := range []string{`"car_0, car_1, car_2 and 422 more":{}`, `"car_85":{"specific_modules"`, `"and 66 more":"each with settings of its own"`, `"users":"501 users"`} {
		if !strings.Contains(line, want) {
			t.Errorf("%s is missing: %s", want, line)
		}
	}
}
