package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"external-server/internal/config/document"
)

// Redacted is the configuration in force as indented JSON in the shape of
// format D, without secrets: CFG-23. Nothing is encoded before it is printed.
func (c *Config) Redacted() RedactedConfig { return RedactedConfig{c} }

// RedactedConfig prints a Config without its secrets.
type RedactedConfig struct{ cfg *Config }

// String returns the indented JSON.
func (r RedactedConfig) String() string {
	var out bytes.Buffer
	raw, err := r.MarshalJSON()
	if err == nil {
		err = json.Indent(&out, raw, "", "  ")
	}
	if err != nil {
		return "the configuration cannot be shown: " + err.Error()
	}
	return out.String()
}

// MarshalJSON returns the same as String.
func (r RedactedConfig) MarshalJSON() ([]byte, error) {
	return encoder{full: true}.config(r.cfg).MarshalJSON()
}

// LogValue defers the work to a handler that wants it; it is JSON on one line.
func (r RedactedConfig) LogValue() slog.Value {
	raw, err := r.MarshalJSON()
	if err != nil {
		return slog.StringValue("the configuration cannot be shown: " + err.Error())
	}
	return slog.StringValue(string(raw))
}

// Line returns the configuration on one line for people: as String, but cars with the
// same settings are one entry, and users of the embedded broker are counted.
func (r RedactedConfig) Line() string {
	raw, err := encoder{full: true, brief: true}.config(r.cfg).MarshalJSON()
	if err != nil {
		return "the configuration cannot be shown: " + err.Error()
	}
	return string(raw)
}

// encoder writes a Config in format D: full and without secrets for people, or
// revealed and without defaults as a file. What is brief cannot be read back.
type encoder struct{ full, reveal, brief bool }

func (e encoder) secret(s Secret) string {
	if e.reveal {
		return s.Reveal()
	}
	return s.String()
}

// optional adds a value that a file may leave out because it is the default.
func (e encoder) optional(o *document.Ordered, key string, value any, isDefault bool) {
	if e.full || !isDefault {
		o.Add(key, value)
	}
}

func seconds(d time.Duration) float64 { return d.Seconds() }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (e encoder) config(c *Config) document.Ordered {
	var o document.Ordered
	o.Add("company_name", c.Company)
	o.Add("external_communication", e.broker(c))
	o.Add("timeout", seconds(c.MessageTimeout))
	o.Add("send_invalid_command", c.SendInvalidCommand)
	o.Add("sleep_duration_after_connection_refused", seconds(c.RetryDelay))
	cars := c.Cars
	if c.AnyCar != nil {
		cars = append(cars[:len(cars):len(cars)], *c.AnyCar)
	}
	common := document.Ordered{}
	if len(cars) > 0 {
		common = e.modules(cars[0].Modules, true)
	}
	o.Add("common_modules", common)
	all := make(document.Ordered, 0, len(cars))
	for _, car := range cars {
		entry := document.Ordered{}
		if specific := e.modules(car.Modules, false); len(specific) > 0 {
			entry.Add("specific_modules", specific)
		}
		if len(car.Labels) > 0 && !e.brief {
			labels := document.Ordered{}
			for _, label := range car.Labels {
				labels.Add(label.Name, label.Value)
			}
			entry.Add("labels", labels)
		}
		all.Add(car.Name, entry)
	}
	if e.brief {
		all = alike(all)
	}
	o.Add("cars", all)
	o.Add("logging", document.Ordered{{Key: "console", Value: e.sink(c.Logging.Console, false)}, {Key: "file", Value: e.sink(c.Logging.File, true)}})
	if b := c.EmbeddedBroker; b != nil {
		o.Add("embedded_broker", e.embedded(b))
	}
	if limits := e.limits(c.Limits); len(limits) > 0 {
		o.Add("limits", limits)
	}
	if c.HTTPAPI != nil {
		o.Add("http_api", e.httpAPI(c.HTTPAPI))
	}
	if c.Admin != nil {
		o.Add("admin", e.admin(c.Admin))
	}
	if t := c.Tracing; t != nil {
		o.Add("tracing", document.Ordered{{Key: "endpoint", Value: t.Endpoint}, {Key: "sample_ratio", Value: t.SampleRatio}})
	}
	if c.Cluster != nil {
		o.Add("cluster", e.cluster(c.Cluster))
	}
	e.optional(&o, "presence", c.Presence, !c.Presence)
	if c.StateDirectory != "" {
		o.Add("state_directory", c.StateDirectory)
		e.optional(&o, "state_sync", c.StateSync, !c.StateSync)
		e.optional(&o, "on_stop", string(c.OnStop), c.OnStop == OnStopSuspend)
	}
	return o
}

// Bounds of what is brief.
const (
	briefNames  = 3  // names of an entry for several cars
	briefGroups = 10 // entries for cars
	briefUsers  = 10
)

// alike folds cars with the same settings into one entry, and what is beyond so many
// entries into a last one.
func alike(cars document.Ordered) document.Ordered {
	var out document.Ordered
	names := make(map[string][]string)
	var order []string
	values := make(map[string]any)
	for _, car := range cars {
		raw, err := car.Value.(document.Ordered).MarshalJSON()
		if err != nil {
			return cars
		}
		key := string(raw)
		if _, known := names[key]; !known {
			order = append(order, key)
			values[key] = car.Value
		}
		names[key] = append(names[key], car.Key)
	}
	others := 0
	for i, key := range order {
		list := names[key]
		if i >= briefGroups {
			others += len(list)
			continue
		}
		text := strings.Join(list[:min(briefNames, len(list))], ", ")
		if more := len(list) - briefNames; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		out.Add(text, values[key])
	}
	if others > 0 {
		out.Add(fmt.Sprintf("and %d more", others), "each with settings of its own")
	}
	return out
}

func (e encoder) broker(c *Config) document.Ordered {
	b := c.Broker
	o := document.Ordered{{Key: "protocol", Value: "MQTT"}}
	if b.Host != "" {
		o.Add("server_address", b.Host)
	}
	if b.Port != 0 {
		o.Add("server_port", b.Port)
	}
	o.Add("timeout_ms", int64(math.Ceil(millis(c.SessionTimeout))))
	files := b.files
	if b.TLS != nil {
		files = *b.TLS
	}
	e.optional(&o, "tls", b.TLS != nil, (b.TLS != nil) == (files != TLS{}))
	for _, f := range []struct{ key, path string }{{"ca_certs_file", files.CAFile}, {"cert_file", files.CertFile}, {"key_file", files.KeyFile}} {
		if f.path != "" {
			o.Add(f.key, f.path)
		}
	}
	if b.Username != "" && (e.full || b.Host != "") { // on the embedded broker its first user is the default
		o.Add("username", b.Username)
		o.Add("password", e.secret(b.Password))
	}
	e.optional(&o, "connections", b.Connections, b.Connections == 0)
	if b.ClientID != "" {
		o.Add("client_id", b.ClientID)
	}
	return o
}

// modules writes the common or the specific ones of the list.
func (e encoder) modules(list []Module, common bool) document.Ordered {
	o := document.Ordered{}
	for _, m := range list {
		if m.common() == common {
			o.Add(m.id(), e.module(m))
		}
	}
	return o
}

func (e encoder) module(m Module) document.Ordered {
	o := document.Ordered{}
	switch {
	case m.Builtin != "":
		o.Add("builtin", m.Builtin)
	case len(m.Command) > 0:
		o.Add("command", m.Command)
	default:
		o.Add("lib_path", m.LibPath)
		e.optional(&o, "isolation", m.Isolation, m.Isolation == IsolationProcess)
	}
	if e.reveal {
		own := document.Ordered{}
		for _, p := range m.Config {
			own.Add(p.Key, p.Value.Reveal())
		}
		o.Add("config", own)
	} else {
		o.Add("config", Hidden)
	}
	e.optional(&o, "timeout_ms", m.PollTimeout.Milliseconds(), m.PollTimeout == defaultPollTimeout)
	if m.Builtin != "" {
		e.optional(&o, "spool_directory", m.SpoolDirectory, m.SpoolDirectory == "" || m.spoolDefault)
		e.optional(&o, "spool_max_bytes", m.SpoolMaxBytes, m.SpoolMaxBytes == defaultSpoolMaxBytes)
		return o
	}
	e.optional(&o, "memory_limit_mb", m.MemoryLimit>>20, m.MemoryLimit == 0)
	e.optional(&o, "answer", m.Answer, m.Answer == AnswerQueued)
	e.optional(&o, "max_restarts", m.MaxRestarts, m.MaxRestarts == defaultMaxRestarts)
	e.optional(&o, "call_timeout_ms", millis(m.CallTimeout), m.CallTimeout == defaultCallTimeout)
	return o
}

func (e encoder) sink(s Sink, file bool) document.Ordered {
	o := document.Ordered{{Key: "level", Value: levelName(s.Level)}, {Key: "use", Value: s.Use}}
	e.optional(&o, "format", s.Format, s.Format == "text")
	if file {
		path := s.Path
		if s.Use && path == "" {
			path = "." // what it means in formats A and B; here it has to be said (CLI-14)
		}
		o.Add("path", path)
		e.optional(&o, "max_size_bytes", s.MaxBytes, s.MaxBytes == defaultLogMaxBytes)
		e.optional(&o, "files_to_keep", s.Keep, s.Keep == defaultLogKeep)
	}
	return o
}

func (e encoder) limits(l Limits) document.Ordered {
	d := defaultLimits()
	o := document.Ordered{}
	e.optional(&o, "statuses_ahead", l.StatusesAhead, l.StatusesAhead == d.StatusesAhead)
	e.optional(&o, "module_queue", l.ModuleQueue, l.ModuleQueue == d.ModuleQueue)
	e.optional(&o, "stop_timeout_ms", millis(l.Stop), l.Stop == d.Stop)
	e.optional(&o, "payload_bytes", l.Payload, l.Payload == d.Payload)
	e.optional(&o, "messages_per_second", l.MessagesPerSec, l.MessagesPerSec == d.MessagesPerSec)
	e.optional(&o, "message_burst", l.MessageBurst, l.MessageBurst == d.MessageBurst)
	e.optional(&o, "idle_car_s", seconds(l.IdleCar), l.IdleCar == d.IdleCar)
	e.optional(&o, "any_cars", l.AnyCars, l.AnyCars == d.AnyCars)
	e.optional(&o, "admission_timeout_ms", millis(l.AdmissionTimeout), l.AdmissionTimeout == d.AdmissionTimeout)
	return o
}

func serverTLSFields(o *document.Ordered, t *ServerTLS) {
	if t == nil {
		return
	}
	tls := document.Ordered{{Key: "cert_file", Value: t.CertFile}, {Key: "key_file", Value: t.KeyFile}}
	if t.ClientCAFile != "" {
		tls.Add("client_ca_file", t.ClientCAFile)
	}
	o.Add("tls", tls)
}

func (e encoder) embedded(b *EmbeddedBroker) document.Ordered {
	o := document.Ordered{{Key: "listen", Value: b.Listen}}
	serverTLSFields(&o, b.TLS)
	users := make([]document.Ordered, len(b.Users))
	for i, u := range b.Users {
		users[i] = document.Ordered{{Key: "name", Value: u.Name}, {Key: "password", Value: e.secret(u.Password)}}
		e.optional(&users[i], "car", u.Car, u.Car == "")
	}
	if e.brief && len(users) > briefUsers {
		o.Add("users", fmt.Sprintf("%d users", len(users)))
	} else {
		e.optional(&o, "users", users, len(users) == 0)
	}
	e.optional(&o, "insecure", b.Insecure, !b.Insecure)
	return o
}

func (e encoder) httpAPI(a *HTTPAPI) document.Ordered {
	o := document.Ordered{{Key: "listen", Value: a.Listen}}
	serverTLSFields(&o, a.TLS)
	o.Add("store", e.secret(a.Store))
	e.optional(&o, "keys_file", a.KeysFile, a.KeysFile == "")
	e.optional(&o, "retention_s", seconds(a.Retention), a.Retention == defaultAPIRetention)
	e.optional(&o, "max_cars", a.MaxCars, a.MaxCars == defaultAPICars)
	e.optional(&o, "wait_timeout_ms", millis(a.WaitTimeout), a.WaitTimeout == defaultAPIWait)
	return o
}

func (e encoder) admin(a *Admin) document.Ordered {
	o := document.Ordered{{Key: "listen", Value: a.Listen}}
	serverTLSFields(&o, a.TLS)
	tokens := make([]document.Ordered, len(a.Tokens))
	for i, t := range a.Tokens {
		tokens[i] = document.Ordered{{Key: "name", Value: t.Name}, {Key: "role", Value: t.Role}}
		if t.TokenFile != "" {
			tokens[i].Add("token_file", t.TokenFile)
		} else {
			tokens[i].Add("token", e.secret(t.Token))
		}
	}
	e.optional(&o, "tokens", tokens, len(tokens) == 0)
	e.optional(&o, "per_car_metrics", a.PerCarMetrics, !a.PerCarMetrics)
	e.optional(&o, "insecure", a.Insecure, !a.Insecure)
	if a.MapTiles != "" {
		tiles, _, keys := strings.Cut(a.MapTiles, "?")
		if keys && !e.reveal { // the key of a customer, perhaps
			tiles += "?" + Hidden
		} else {
			tiles = a.MapTiles
		}
		o.Add("map_tiles", tiles)
		e.optional(&o, "map_attribution", a.MapAttribution, a.MapAttribution == "")
		e.optional(&o, "map_max_zoom", a.MapMaxZoom, a.MapMaxZoom == defaultMapMaxZoom)
	}
	return o
}
