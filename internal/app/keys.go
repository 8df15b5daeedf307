package app

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"external-server/internal/config"
)

// noSettings are the fields of config.Config that say where it comes from.
var noSettings = []string{"Source", "Format"}

// keyNames are the keys of the configuration, format D, whose names do not follow from
// the fields that hold them.
var keyNames = map[string]string{
	"Company":               "company_name",
	"Broker":                "external_communication",
	"Broker.Host":           "external_communication.server_address",
	"Broker.Port":           "external_communication.server_port",
	"Logging.File.MaxBytes": "logging.file.max_size_bytes",
	"Logging.File.Keep":     "logging.file.files_to_keep",
	// The console has the same type.
	"Logging.Console.MaxBytes": "logging.console.max_size_bytes",
	"Logging.Console.Keep":     "logging.console.files_to_keep",
	"Cluster.Lease":            "cluster.lease_ms",
}

// needRestart names the settings that differ and that no part applies, with their
// values unless these may be secret.
func needRestart(old, fresh *config.Config, applied []string) []string {
	d := difference{applied: append(applied, noSettings...)}
	d.compare("", reflect.ValueOf(*old), reflect.ValueOf(*fresh))
	return d.keys
}

// difference collects the settings that differ.
type difference struct {
	applied []string // paths to leave out
	keys    []string
}

var secretType = reflect.TypeFor[config.Secret]()

func (d *difference) compare(path string, a, b reflect.Value) {
	switch {
	case covers(d.applied, path):
	case a.Type() == secretType || a.Kind() == reflect.Slice:
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			d.keys = append(d.keys, keyName(path))
		}
	case a.Kind() == reflect.Pointer && a.IsNil() != b.IsNil():
		d.keys = append(d.keys, keyName(path)+map[bool]string{true: " (added)", false: " (removed)"}[a.IsNil()])
	case a.Kind() == reflect.Pointer && !a.IsNil():
		d.compare(path, a.Elem(), b.Elem())
	case a.Kind() == reflect.Struct:
		for i := range a.NumField() {
			if f := a.Type().Field(i); f.IsExported() {
				d.compare(below(path, f.Name), a.Field(i), b.Field(i))
			}
		}
	case !reflect.DeepEqual(a.Interface(), b.Interface()):
		d.keys = append(d.keys, fmt.Sprintf("%s (%s → %s)", keyName(path), shown(a), shown(b)))
	}
}

// covers tells whether one of the patterns stands for the path.
func covers(patterns []string, path string) bool {
	for _, p := range patterns {
		if all, ok := strings.CutSuffix(p, "*"); p == path || ok && strings.HasPrefix(path, all) {
			return true
		}
	}
	return false
}

func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// keyName returns the key that a field holds.
func keyName(path string) string {
	if name, ok := keyNames[path]; ok {
		return name
	}
	parent, field := "", path
	if at := strings.LastIndexByte(path, '.'); at >= 0 {
		parent, field = keyName(path[:at])+".", path[at+1:]
	}
	return parent + snakeCase(field)
}

// snakeCase turns a name such as HTTPAPI or KeysFile into http_api or keys_file.
func snakeCase(name string) string {
	switch name {
	case "HTTPAPI":
		return "http_api"
	case "TLS":
		return "tls"
	case "ClientID":
		return "client_id"
	case "PeerTLS":
		return "peer_tls"
	case "CAFile":
		return "ca_file"
	}
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func shown(v reflect.Value) string {
	if v.Kind() == reflect.String {
		return strconv.Quote(v.String())
	}
	return fmt.Sprint(v.Interface())
}
