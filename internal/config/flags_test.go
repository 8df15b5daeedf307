package config

import (
	"os"
	"strings"
	"testing"
)

// TestApplyFlags covers CLI-4, 5, 7, 10 and 11.
func TestApplyFlags(t *testing.T) {
	workdir(t)
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	all := TLS{CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem"}
	inFile := `"mqtt_ca_certs_file": "ca.pem", "mqtt_cert_file": "cert.pem", "mqtt_key_file": "key.pem"`
	for _, c := range []struct {
		name  string
		keys  string
		flags Flags
		want  *TLS // nil: no TLS
		port  int
		err   string
	}{
		{"nothing", `"presence": false`, Flags{}, nil, 1883, ""},
		{"files of the configuration", inFile, Flags{}, &all, 8883, ""},
		{"CA alone in the configuration", `"mqtt_ca_certs_file": "ca.pem"`, Flags{}, &TLS{CAFile: "ca.pem"}, 8883, ""},
		{"switch in the configuration", `"mqtt_tls": "yes"`, Flags{}, &TLS{}, 8883, ""},
		{"scheme with TLS", `"mqtt_tls": true`, Flags{}, &TLS{}, 8883, ""},
		{"off in the configuration", `"mqtt_tls": false, ` + inFile, Flags{}, nil, 1883, ""},
		{"off in the configuration, on by flag", `"mqtt_tls": false, ` + inFile, Flags{TLS: &yes}, &all, 8883, ""},
		{"off by flag", inFile, Flags{TLS: &no}, nil, 1883, ""},
		{"port stays", inFile + `, "mqtt_port": 1000`, Flags{TLS: &no}, nil, 1000, ""},
		{"all flags", `"presence": false`, Flags{&yes, "ca.pem", "cert.pem", "key.pem"}, &all, 8883, ""},
		{"files without --tls", `"presence": false`, Flags{nil, "ca.pem", "none.pem", ""}, nil, 1883, ""},
		{"one file replaced", inFile, Flags{CA: "lib.so"}, &TLS{CAFile: "lib.so", CertFile: "cert.pem", KeyFile: "key.pem"}, 8883, ""},
		{"--tls alone", `"presence": false`, Flags{TLS: &yes}, nil, 0,
			"arguments are invalid: TLS needs additional parameters: CA certificate (--ca), client certificate (PEM) (--cert), private key (--key)"},
		{"--tls without certificate", `"presence": false`, Flags{&yes, "ca.pem", "", "key.pem"}, nil, 0,
			"arguments are invalid: TLS needs additional parameters: client certificate (PEM) (--cert)"},
		{"--tls completed by the file", `"mqtt_ca_certs_file": "ca.pem"`, Flags{TLS: &yes, Cert: "cert.pem"}, nil, 0,
			"arguments are invalid: TLS needs additional parameters: private key (--key)"},
		{"missing files", `"presence": false`, Flags{&yes, "no-ca.pem", "cert.pem", "no-key.pem"}, nil, 0,
			`arguments are invalid: --ca: "no-ca.pem" does not exist (in DIR); expected a readable PEM file; --key: "no-key.pem" does not exist (in DIR); expected a readable PEM file`},
		{"certificate without key", `"mqtt_ca_certs_file": "ca.pem"`, Flags{Cert: "cert.pem"}, nil, 0,
			"arguments are invalid: the client certificate (--cert) and its private key (--key) belong together"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, _ := mustLoad(t, with(minimalA, c.keys))
			err := cfg.ApplyFlags(c.flags)
			if c.err != "" {
				if err == nil || strings.ReplaceAll(err.Error(), cwd, "DIR") != c.err {
					t.Errorf("got  %v\nwant %s", err, c.err)
				}
				return
			}
			got := cfg.Broker.TLS
			if err != nil || (got == nil) != (c.want == nil) || got != nil && *got != *c.want || cfg.Broker.Port != c.port {
				t.Errorf("TLS %+v, port %d, error %v", got, cfg.Broker.Port, err)
			}
		})
	}
}
