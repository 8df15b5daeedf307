package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Migrate reads a file of any format and returns the same configuration in
// format D, in a stable order, and notes for a person about what changed. The
// files it names need not exist and the environment has no influence. Unlike
// every other output it contains the secrets: it is a configuration file.
func Migrate(path string) ([]byte, []string, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	l := newLoader(path, data, nil)
	l.files.Skip = true
	cfg, warnings, err := l.result(l.load())
	if err != nil {
		return nil, nil, err
	}
	raw, err := encoder{reveal: true}.config(cfg).MarshalJSON()
	if err != nil {
		return nil, nil, fmt.Errorf("migrate %s: %w", path, err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, nil, fmt.Errorf("migrate %s: %w", path, err)
	}
	out.WriteByte('\n')
	notes := l.migrationNotes(cfg)
	for _, w := range warnings {
		notes = append(notes, w.String())
	}
	return out.Bytes(), notes, nil
}

// moved lists where keys of the older formats went.
var moved = []struct{ old, now string }{
	{"car_name", "cars"},
	{"modules", "common_modules"},
	{"mqtt_address", "external_communication.server_address"},
	{"mqtt_port", "external_communication.server_port"},
	{"mqtt_timeout", "external_communication.timeout_ms, in milliseconds"},
	{"mqtt_username", "external_communication.username"},
	{"mqtt_password", "external_communication.password"},
	{"mqtt_connections", "external_communication.connections"},
	{"mqtt_client_id", "external_communication.client_id"},
	{"mqtt_tls", "external_communication.tls"},
	{"mqtt_ca_certs_file", "external_communication.ca_certs_file"},
	{"mqtt_cert_file", "external_communication.cert_file"},
	{"mqtt_key_file", "external_communication.key_file"},
	{"log_files_directory", "logging.file.path"},
	{"log_files_to_keep", "logging.file.files_to_keep"},
	{"log_file_max_size_bytes", "logging.file.max_size_bytes"},
}

// filled lists the keys that the reference demands in format D, with what older
// notations give them from.
var filled = []struct{ key, from string }{
	{"timeout", ""},
	{"send_invalid_command", ""},
	{"sleep_duration_after_connection_refused", ""},
	{"logging", "log_files_directory"},
}

func (l *loader) migrationNotes(cfg *Config) []string {
	root := l.root
	var notes []string
	add := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if cfg.Format == FormatD {
		add("the file has format D already; keys are in the usual order and defaults are left out")
	} else {
		add("format %s became format D", cfg.Format)
	}
	d := root.Member("external_communication")
	for _, m := range moved {
		ignored := d != nil && strings.HasPrefix(m.old, "mqtt_") ||
			root.Member("logging") != nil && strings.HasPrefix(m.old, "log_file") ||
			cfg.Format != FormatA && (m.old == "car_name" || m.old == "modules")
		if root.Member(m.old) != nil && !ignored {
			add("%s is now %s", m.old, m.now)
		}
	}
	if n := root.Member("logging"); n != nil {
		if n.Member("log-path") != nil {
			add("logging.log-path is now logging.file.path")
		}
		if n.Member("verbose") != nil {
			add("logging.verbose is now the level of console and file")
		}
	}
	if cfg.Format != FormatA && root.Member("common_modules") == nil {
		add("common_modules was missing; it is written empty")
	}
	for _, f := range filled {
		if root.Member(f.key) == nil && (f.from == "" || root.Member(f.from) == nil) {
			add("%s was missing; the default is written", f.key)
		}
	}
	address := root.Member("mqtt_address")
	if d != nil {
		address = d.Member("server_address")
	}
	if address != nil && address.Text != cfg.Broker.Host && cfg.Broker.Host != "" {
		add("the scheme or brackets around the address of the broker are gone")
	}
	if l.converted {
		add("numbers and booleans in the config of modules are written as the strings that modules get (MOD-9)")
	}
	return notes
}
