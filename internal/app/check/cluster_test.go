package check

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"external-server/internal/config"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/etcdtest"
)

// TestCheckLooksAtCertificatesOfTheCluster: files that are no certificates are found
// without a start, with their place.
func TestCheckLooksAtCertificatesOfTheCluster(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("planted"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := fmt.Sprintf(`{"ca_file": %q, "cert_file": %q, "key_file": %q}`, junk, junk, junk)
	path := filepath.Join(dir, "config.json")
	text := `{"company_name": "company", "mqtt_address": "127.0.0.1", "state_directory": "` + dir + `",
"cluster": {"etcd": ["https://127.0.0.1:1"], "peer_listen": "127.0.0.1:0",
"tls": ` + files + `,
"peer_tls": ` + files + `},
"common_modules": {"1": {"builtin": "mission", "config": {"api_url": "http://127.0.0.1:1"}}}, "cars": {"car": {}}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"3:8: cluster.tls: ", "4:13: cluster.peer_tls: "}
	problems := Configuration(t.Context(), cfg).Problems
	if len(problems) != len(want) {
		t.Fatalf("%v", problems)
	}
	for i, p := range problems {
		if !strings.HasPrefix(p.String(), path+":"+want[i]) || strings.Contains(p.String(), "planted") {
			t.Errorf("problem %d: %v, want %s", i, p, want[i])
		}
	}
}

// TestCheckKnowsWhatOtherReplicasRefuse: a certificate that the other servers would not accept is found before the start.
func TestCheckKnowsWhatOtherReplicasRefuse(t *testing.T) {
	ours, theirs := brokertest.NewCerts(t), brokertest.NewCerts(t)
	for name, tt := range map[string]struct {
		ca      string
		pair    brokertest.Pair
		address string
		want    string
	}{
		"all is well":      {ours.CAFile, ours.Replica, "localhost:8070", ""},
		"another CA":       {theirs.CAFile, ours.Replica, "localhost:8070", "is not accepted with the CA certificate"},
		"expired":          {ours.CAFile, ours.ClientExpired, "localhost:8070", "has expired at"},
		"for servers only": {ours.CAFile, ours.Server, "localhost:8070", "is not for servers and clients"},
		"another name":     {ours.CAFile, ours.Replica, "es-0.example.org:8070", "reach this server at es-0.example.org"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "config.json")
		text := fmt.Sprintf(`{"company_name": "company", "mqtt_address": "127.0.0.1", "state_directory": %q,
"cluster": {"etcd": ["http://127.0.0.1:1"], "peer_listen": "127.0.0.1:8070", "peer_address": %q,
"peer_tls": {"ca_file": %q, "cert_file": %q, "key_file": %q}},
"common_modules": {"1": {"builtin": "mission", "config": {"api_url": "http://127.0.0.1:1"}}}, "cars": {"car": {}}}`,
			dir, tt.address, tt.ca, tt.pair.CertFile, tt.pair.KeyFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := config.Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		problems := Configuration(t.Context(), cfg).Problems
		if told := fmt.Sprint(problems); tt.want == "" && len(problems) > 0 || tt.want != "" && (len(problems) != 1 ||
			!strings.Contains(told, "config.json:3:13: cluster.peer_tls: ") || !strings.Contains(told, tt.want)) {
			t.Errorf("%s: %s, want %q", name, told, tt.want)
		}
	}
}

// TestCheckAsksEtcd: what a start would meet at etcd is told, and nothing is written.
func TestCheckAsksEtcd(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	load := func(url string) *config.Config {
		t.Helper()
		dir := t.TempDir()
		path := filepath.Join(dir, "config.json")
		text := `{"company_name": "company", "mqtt_address": "127.0.0.1", "state_directory": "` + dir + `",
"cluster": {"etcd": ["` + url + `"], "peer_listen": "127.0.0.1:0", "peer_token": "planted-planted-planted",
"shards": 8},
"common_modules": {"1": {"builtin": "mission", "config": {"api_url": "http://127.0.0.1:1"}}}, "cars": {"car": {}}}`
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := config.Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	if report := Configuration(t.Context(), load(e.URL())); len(report.Problems)+len(report.Warnings) > 0 {
		t.Errorf("an empty etcd: %v, %q", report.Problems, report.Warnings)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{e.URL()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	all, err := client.Get(t.Context(), "/", clientv3.WithPrefix())
	if err != nil || all.Count > 0 {
		t.Errorf("a check has written to etcd: %v, %v", all, err)
	}
	if _, err := client.Put(t.Context(), "/external-server/company/settings", `{"format":1,"shards":32}`); err != nil {
		t.Fatal(err)
	}
	report := Configuration(t.Context(), load(e.URL()))
	if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].String(), "config.json:3:11: cluster.shards: the number of shards is 8, and the cluster was made with 32") {
		t.Errorf("%v", report.Problems)
	}
	e.Kill()
	report = Configuration(t.Context(), load(e.URL()))
	if len(report.Problems) != 0 || len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "config.json:2:21: cluster.etcd: etcd ") {
		t.Errorf("%v, %q", report.Problems, report.Warnings)
	}
}

// TestCheckAsksSecuredEtcd: with certificate, user and password etcd is asked, and a check says
// what it refuses, without a secret.
func TestCheckAsksSecuredEtcd(t *testing.T) {
	certs, others := brokertest.NewCerts(t), brokertest.NewCerts(t)
	e := etcdtest.Start(t, etcdtest.Options{CertFile: certs.Replica.CertFile, KeyFile: certs.Replica.KeyFile, ClientCAFile: certs.CAFile})
	e.Secure(certs.ClientConfig(&certs.Client), "company", "es", "planted-password")
	for name, tt := range map[string]struct {
		ca, password string
		client       brokertest.Pair
		want         string
	}{
		"all is well":         {certs.CAFile, "planted-password", certs.Client, ""},
		"wrong password":      {certs.CAFile, "planted-wrong", certs.Client, "etcd refuses the user name or the password"},
		"wrong authority":     {others.CAFile, "planted-password", certs.Client, "is signed by none of the authorities that this server trusts (cluster.tls.ca_file)"},
		"expired certificate": {certs.CAFile, "planted-password", certs.ClientExpired, "refuses the certificate of this server (cluster.tls.cert_file), which is not valid now"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "config.json")
			text := fmt.Sprintf(`{"company_name": "company", "mqtt_address": "127.0.0.1", "state_directory": %q,
"cluster": {"etcd": [%q], "peer_listen": "127.0.0.1:0", "peer_token": "planted-planted-planted",
"username": "es", "password": %q, "tls": {"ca_file": %q, "cert_file": %q, "key_file": %q}},
"common_modules": {"1": {"builtin": "mission", "config": {"api_url": "http://127.0.0.1:1"}}}, "cars": {"car": {}}}`,
				dir, e.URL(), tt.password, tt.ca, tt.client.CertFile, tt.client.KeyFile)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, _, err := config.Load(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			report := Configuration(t.Context(), cfg)
			told := fmt.Sprint(report.Problems, report.Warnings)
			if tt.want == "" && len(report.Problems)+len(report.Warnings) > 0 || tt.want != "" && (len(report.Warnings) != 1 ||
				!strings.Contains(told, "config.json:2:21: cluster.etcd: ") || !strings.Contains(told, tt.want)) {
				t.Errorf("%s, want %q", told, tt.want)
			}
			if strings.Contains(told, "planted") {
				t.Errorf("a secret is told: %s", told)
			}
		})
	}
}
