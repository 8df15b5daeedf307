package fleetapi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testlog"
)

// TestSettings is MM-9. An empty want means that the module opens.
func TestSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "SECRET.pem")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		builtin string
		pairs   []string
		want    string
	}{
		{"all keys", Mission, []string{"api_url", "http://http-api:8080/v2/protocol", "api_key", "k", "max_requests_threshold_count", "3", "max_requests_threshold_period_ms", "1000", "delay_after_threshold_reached_ms", "500", "retry_requests_delay_ms", "220"}, ""},
		{"https and a trailing slash", Mission, []string{"api_url", "https://a-b.c_d.example/x/"}, ""},
		{"address", Mission, []string{"api_url", "http://127.0.0.1:8080"}, ""},
		{"no url", Mission, nil, "key api_url: it is missing; expected"},
		{"empty url", Mission, []string{"api_url", ""}, "key api_url"},
		{"no scheme", Mission, []string{"api_url", "http-api:8080/v2"}, "the scheme is missing"},
		{"other scheme", Mission, []string{"api_url", "ftp://host"}, "key api_url"},
		{"key in the url", Mission, []string{"api_url", "http://host/v2?api_key=SECRET"}, "the key belongs to api_key"},
		{"user in the url", Mission, []string{"api_url", "http://me:SECRET@host/v2"}, "user name"},
		{"dot in the path", Mission, []string{"api_url", "http://host/v2.0"}, "key api_url"},
		{"space", Mission, []string{"api_url", "http://ho st"}, "key api_url"},
		{"line break", Mission, []string{"api_url", "http://host\n"}, "key api_url"},
		{"port", Mission, []string{"api_url", "http://host:65536"}, "the port is out of range; expected 1 to 65535"},
		{"empty key", Mission, []string{"api_url", "http://host", "api_key", ""}, "key api_key: it is empty"},
		{"negative number", Mission, []string{"api_url", "http://host", "max_requests_threshold_count", "-1"}, `key max_requests_threshold_count: expected an integer from 0 to 10000`},
		{"no number", IO, []string{"api_url", "http://host", "retry_requests_delay_ms", "soon"}, `key retry_requests_delay_ms: expected an integer from 0 to 86400000`},
		{"too large", IO, []string{"api_url", "http://host", "max_requests_threshold_period_ms", "99999999999999999999"}, "key max_requests_threshold_period_ms"},
		{"fraction", Mission, []string{"api_url", "http://host", "retry_requests_delay_ms", "1.5"}, "key retry_requests_delay_ms"},
		{"module 1 is strict", Mission, []string{"api_url", "http://host", "retry_requests_delay_ms", "220ms"}, "key retry_requests_delay_ms"},
		{"modules 2 and 3 are not", IO, []string{"api_url", "http://host", "retry_requests_delay_ms", "220ms"}, ""},
		{"unknown keys", Transparent, []string{"api_url", "http://host", "colour", "SECRET"}, ""},
		{"company", Mission, []string{"api_url", "http://host", "company_name", "Acme"}, ""}, // MOD-8: the first one counts
		{"certificate without key", Mission, []string{"api_url", "https://host", "cert_file", file}, "key cert_file and key_file"},
		{"certificate without https", Mission, []string{"api_url", "http://host", "ca_file", file}, "expected https://"},
		{"absent CA", Mission, []string{"api_url", "https://host", "ca_file", file + "x"}, "key ca_file"},
		{"CA that is none", Mission, []string{"api_url", "https://host", "ca_file", file}, "no certificate in PEM form"},
		{"key that is none", Mission, []string{"api_url", "https://host", "cert_file", file, "key_file", file}, "cert_file, key_file: client certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log testlog.Buffer
			m, err := New(Options{Builtin: tt.builtin, Logger: log.Logger()})
			if err != nil {
				t.Fatal(err)
			}
			i, err := m.Open(t.Context(), spec(tt.pairs...))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := i.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "built-in module "+tt.builtin) {
				t.Fatalf("error %v; want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "SECRET") || strings.Contains(log.String(), "SECRET") {
				t.Errorf("a secret in %v or in %s", err, log.String())
			}
		})
	}
}

// TestNoValueInErrors: any value of a configuration may be a secret in the wrong
// place, so errors and the log name keys only.
func TestNoValueInErrors(t *testing.T) {
	const secret = "SECRET/nothing-there"
	for _, builtin := range []string{Mission, IO, Transparent} {
		for _, key := range []string{keyURL, keyKey, keyCompany, keyCar, keyCount, keyPeriod, keyLong, keyShort, keyCA, keyCert, keyKeyFile, "colour"} {
			var log testlog.Buffer
			m, err := New(Options{Builtin: builtin, Logger: log.Logger()})
			if err != nil {
				t.Fatal(err)
			}
			pairs := module.InstanceSpec{Car: car, Config: []module.Pair{{Key: key, Value: secret}, {Key: keyURL, Value: "https://host"}}}
			if key == keyCert || key == keyKeyFile {
				pairs.Config = append(pairs.Config, module.Pair{Key: keyCert, Value: secret}, module.Pair{Key: keyKeyFile, Value: secret})
			}
			i, err := m.Open(t.Context(), pairs)
			if err == nil {
				stop(t, i.(*Instance))
			} else if strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), key) {
				t.Errorf("%s, %s: %v", builtin, key, err)
			}
			if err == nil && key != keyKey && key != "colour" || strings.Contains(log.String(), "SECRET") {
				t.Errorf("%s, %s: error %v, log %s", builtin, key, err, log.String())
			}
		}
	}
}

// TestAllFaultsAtOnce: a configuration with three wrong keys gets three errors.
func TestAllFaultsAtOnce(t *testing.T) {
	m, err := New(Options{Builtin: Mission})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Open(t.Context(), module.InstanceSpec{Car: fleet.CarID{Company: "Acme"}, Config: []module.Pair{{Key: "api_url", Value: "x"}, {Key: "retry_requests_delay_ms", Value: ""}}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{"key api_url", "key retry_requests_delay_ms", "key company_name: expected lower case letters", "key car_name: expected lower case letters"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%v does not name %s", err, key)
		}
	}
}

func TestDefaults(t *testing.T) {
	i := open(t, Options{Builtin: IO}, "api_url", "http://host")
	want := guardSettings{count: 3, period: time.Second, long: 500 * time.Millisecond, short: 220 * time.Millisecond}
	if got := i.poll.guard.guardSettings; got != want { // MM-9 [REC]
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestUnknownKeysOnce: ten thousand cars with one misspelt key are one line.
func TestUnknownKeysOnce(t *testing.T) {
	var log testlog.Buffer
	m, err := New(Options{Builtin: IO, Logger: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		i, err := m.Open(t.Context(), spec("api_url", "http://host", "api_kee", "SECRET"))
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "api_kee"); n != 1 || strings.Contains(log.String(), "SECRET") {
		t.Errorf("%d lines: %s", n, log.String())
	}
}
