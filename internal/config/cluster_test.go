package config

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// clusterFile is a valid file whose cluster block is the text.
func clusterFile(block string) string {
	return with(minimalD, `"state_directory": "state", "cluster": {`+block+`}`)
}

const (
	someEtcd  = `"etcd": ["http://127.0.0.1:2379"]`
	somePeers = `"peer_listen": "127.0.0.1:8070", "peer_token": "0123456789abcdef"`
	replica   = `"replica": "r0"`
)

// TestClusterDefaults: what may be left out has a value; names come from company and
// machine.
func TestClusterDefaults(t *testing.T) {
	workdir(t)
	cfg, warnings := mustLoad(t, clusterFile(`"etcd": ["http://localhost", "http://[::1]:1/"], `+somePeers))
	c := cfg.Cluster
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(c.Etcd, " ") != "http://localhost:2379 http://[::1]:1" || c.Name != "c" || c.Replica != host || c.Shards != 32 || c.Lease != 3*time.Second || c.TLS != nil || c.PeerAddress != "" || len(warnings) > 0 {
		t.Errorf("%+v, %v", c, warnings)
	}
	cfg, _ = mustLoad(t, clusterFile(`"etcd": ["https://e"], `+somePeers))
	if cfg.Cluster.TLS == nil || *cfg.Cluster.TLS != (TLS{}) {
		t.Errorf("https and %+v", cfg.Cluster.TLS)
	}
	if cfg, _ := mustLoad(t, with(minimalD, `"cluster": false`)); cfg.Cluster != nil {
		t.Error("a cluster that is switched off")
	}
}

// TestClusterLongMachineName: a fully qualified name is cut, one that cannot be a name is
// an error that asks for another.
func TestClusterLongMachineName(t *testing.T) {
	load := func(name string) (*Config, error) {
		l := newLoader("f.json", []byte(clusterFile(someEtcd+", "+somePeers)), nil)
		l.files.Skip, l.hostname = true, func() (string, error) { return name, nil }
		cfg, _, err := l.result(l.load())
		return cfg, err
	}
	cfg, err := load("node-7." + strings.Repeat("x", 70) + ".example.org")
	if err != nil || cfg.Cluster.Replica != "node-7" {
		t.Errorf("%v, %v", cfg, err)
	}
	for _, name := range []string{"", "a b", "-x", strings.Repeat("x", 65)} {
		if _, err := load(name); err == nil || !strings.Contains(err.Error(), "cluster.replica: required, because the name of this machine cannot be the default; expected 1 to 64 letters") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestClusterEnvironment: secrets may come from the environment, which wins.
func TestClusterEnvironment(t *testing.T) {
	workdir(t)
	write(t, "config.json", clusterFile(`"username": "x", "password": "y", "peer_listen": "127.0.0.1:8070", `+someEtcd))
	env := map[string]string{EnvEtcdUsername: "u", EnvEtcdPassword: "p", EnvPeerToken: "0123456789abcdef"}
	cfg, _, err := Load("config.json", func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	if c := cfg.Cluster; c.Username != "u" || c.Password.Reveal() != "p" || c.PeerToken.Reveal() != "0123456789abcdef" {
		t.Errorf("%+v", c)
	}
}

// TestClusterErrors shows the lines a person sees, without the file's name and position.
func TestClusterErrors(t *testing.T) {
	workdir(t)
	const needsAddress = "expected host:port at which the other servers reach this one"
	for _, c := range []struct {
		name, text, want string
	}{
		{"nothing", clusterFile(``),
			"cluster.etcd: required, but missing; expected an array of URLs such as [\"http://etcd-0.example.org:2379\"]\n" +
				"cluster.peer_listen: required, but missing; expected the address on which this server listens for the others, such as \"10.0.0.1:8070\"\n" +
				"cluster.peer_tls: required, but missing; expected ca_file, cert_file and key_file, with which the servers trust each other, or cluster.peer_token on a private network"},
		{"one URL as text", clusterFile(`"etcd": "http://e", ` + somePeers), `cluster.etcd: expected an array of URLs such as ["http://etcd-0.example.org:2379"], got a string`},
		{"no URL", clusterFile(`"etcd": [], ` + somePeers), `cluster.etcd: expected 1 to 16 URLs`},
		{"not URLs", clusterFile(`"etcd": ["e:2379", "http://u:planted@e", "http://e/v3", "http://e:0", 5], ` + somePeers),
			"cluster.etcd[0]: expected a URL such as \"http://etcd-0.example.org:2379\", with host and port alone\n" +
				"cluster.etcd[1]: expected a URL such as \"http://etcd-0.example.org:2379\", with host and port alone\n" +
				"cluster.etcd[2]: expected a URL such as \"http://etcd-0.example.org:2379\", with host and port alone\n" +
				"cluster.etcd[3]: expected a URL such as \"http://etcd-0.example.org:2379\", with host and port alone\n" +
				"cluster.etcd[4]: expected a URL, got a number"},
		{"http and https", clusterFile(`"etcd": ["http://e", "https://f"], ` + somePeers), `cluster.etcd: some are http, some https; expected one of the two for all`},
		{"TLS with http", clusterFile(`"tls": {}, ` + someEtcd + ", " + somePeers), `cluster.tls: the URLs of etcd are http, which is without TLS; expected https URLs, or no tls`},
		{"certificate without key", clusterFile(`"etcd": ["https://e"], "tls": {"cert_file": "cert.pem"}, ` + somePeers), `cluster.tls.cert_file: a certificate without private key; expected cluster.tls.key_file too`},
		{"password alone", clusterFile(`"password": "planted", ` + someEtcd + ", " + somePeers), `cluster.password: a password without user name; expected cluster.username (or EXTERNAL_SERVER_ETCD_USERNAME in the environment) too`},
		{"user name alone", clusterFile(`"username": "u", ` + someEtcd + ", " + somePeers), `cluster.username: a user name without password; expected cluster.password (or EXTERNAL_SERVER_ETCD_PASSWORD in the environment) too`},
		{"names", clusterFile(`"name": "A/b", "replica": "a b", ` + someEtcd + ", " + somePeers),
			"cluster.name: expected 1 to 32 lower-case letters, digits, - and _\n" +
				"cluster.replica: expected 1 to 64 letters, digits, -, _ and dots, different for each server"},
		{"long company", strings.Replace(clusterFile(replica+", "+someEtcd+", "+somePeers), `"c"`, `"`+strings.Repeat("c", 33)+`"`, 1),
			`cluster.name: required, because the name of the company is longer than 32 bytes; expected a shorter name of the cluster`},
		{"every address", clusterFile(`"peer_listen": ":8070", "peer_token": "0123456789abcdef", ` + someEtcd),
			`cluster.peer_address: required, because cluster.peer_listen stands for every address of this machine; ` + needsAddress},
		{"no peer address", clusterFile(`"peer_address": "0.0.0.0:8070", ` + someEtcd + ", " + somePeers), `cluster.peer_address: ` + needsAddress + `, such as "es-0.example.org:8070"`},
		{"no port", clusterFile(`"peer_address": "es-0", ` + someEtcd + ", " + somePeers), `cluster.peer_address: ` + needsAddress + `, such as "es-0.example.org:8070"`},
		{"any port with a name for it", clusterFile(`"peer_listen": "127.0.0.1:0", "peer_address": "h:1", "peer_token": "0123456789abcdef", ` + someEtcd),
			`cluster.peer_listen: port 0 is any free one, which cluster.peer_address cannot name; expected the port`},
		{"TLS and token", clusterFile(`"peer_tls": {"ca_file": "ca.pem", "cert_file": "cert.pem", "key_file": "key.pem"}, ` + someEtcd + ", " + somePeers),
			`cluster.peer_token: cluster.peer_tls is there too; expected one of the two`},
		{"part of TLS", clusterFile(`"peer_listen": "127.0.0.1:8070", "peer_tls": {"ca_file": "", "cert_file": "cert.pem"}, ` + someEtcd),
			"cluster.peer_tls.key_file: required, but missing; expected its PEM private key\n" +
				"cluster.peer_tls.ca_file: must not be empty; expected the PEM file of the authority that signed the certificates of all servers"},
		{"short token", clusterFile(`"peer_listen": "127.0.0.1:8070", "peer_token": "planted", ` + someEtcd),
			`cluster.peer_token: expected 16 to 1024 printable ASCII characters without blanks, the same for all servers, such as openssl rand -hex 32 makes`},
		{"long token", clusterFile(`"peer_listen": "127.0.0.1:8070", "peer_token": "` + strings.Repeat("x", 1025) + `", ` + someEtcd),
			`cluster.peer_token: expected 16 to 1024 printable ASCII characters without blanks, the same for all servers, such as openssl rand -hex 32 makes`},
		{"no names", clusterFile(`"name": 5, "replica": {}, ` + someEtcd + ", " + somePeers), "cluster.name: expected a string, got a number\ncluster.replica: expected a string, got an object"},
		{"token in public", clusterFile(`"peer_listen": "203.0.113.1:8070", "peer_token": "planted-planted-planted", ` + someEtcd),
			`cluster.peer_listen: a token goes over the network without encryption, which is for loopback and private addresses only; expected such an address, or cluster.peer_tls`},
		{"token at a public address", clusterFile(`"peer_listen": ":8070", "peer_address": "[2001:db8::1]:8070", "peer_token": "planted-planted-planted", ` + someEtcd),
			`cluster.peer_address: a token goes over the network without encryption, which is for loopback and private addresses only; expected such an address, or cluster.peer_tls`},
		{"shards", clusterFile(`"shards": 0, ` + someEtcd + ", " + somePeers), `cluster.shards: expected a whole number from 1 to 64, got 0`},
		{"lease", clusterFile(`"lease_ms": 2500, ` + someEtcd + ", " + somePeers), `cluster.lease_ms: expected whole seconds from 2000 to 60000, in milliseconds`},
		{"short lease", clusterFile(`"lease_ms": 1000, ` + someEtcd + ", " + somePeers), `cluster.lease_ms: expected 2000 milliseconds or more, got 1000`},
		{"embedded broker", with(minimalD, `"embedded_broker": {}, "state_directory": "state", "cluster": {`+someEtcd+", "+somePeers+`}`),
			`cluster: embedded_broker is there too, which one server alone has; expected an MQTT broker of its own for all servers (external_communication.server_address)`},
		{"no state", with(minimalD, `"cluster": {`+someEtcd+", "+somePeers+`}`),
			`cluster: a server of a cluster keeps sessions on its disk; expected state_directory too, a local directory for each server`},
		{"SQLite", with(minimalD, `"http_api": true, "state_directory": "state", "cluster": {`+someEtcd+", "+somePeers+`}`),
			`http_api.store: SQLite serves one server only; in a cluster expected "postgres://…", the same database for all servers`},
		{"one address for two", with(minimalD, `"admin": {"listen": ":8070", "insecure": true}, "state_directory": "state", "cluster": {`+someEtcd+", "+somePeers+`}`),
			`cluster.peer_listen: admin.listen listens on the same address; each needs a port of its own`},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, "config.json", c.text)
			_, _, err := Load("config.json", nil)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("no error, want %s", c.want)
			}
			var got []string
			for _, p := range errs {
				if p.Line != 1 || p.Column < 2 || p.File != "config.json" {
					t.Errorf("no place: %#v", p)
				}
				got = append(got, p.Key+": "+p.Text)
			}
			if text := strings.Join(got, "\n"); text != c.want {
				t.Errorf("\ngot  %s\nwant %s", text, c.want)
			}
			if strings.Contains(err.Error(), "planted") {
				t.Errorf("a secret is printed: %v", err)
			}
		})
	}
}

// TestClusterWarnings: what works, and is a risk or has no effect, is told.
func TestClusterWarnings(t *testing.T) {
	workdir(t)
	for name, c := range map[string]struct{ text, want string }{
		"token on a private network": {clusterFile(`"peer_listen": "10.0.0.1:8070", "peer_token": "0123456789abcdef", ` + someEtcd),
			"cluster.peer_token: what the servers tell each other, and the token itself, is not encrypted; on a network that others share use cluster.peer_tls"},
		"password without TLS": {clusterFile(`"username": "u", "password": "planted", "peer_address": "10.0.0.1:8070", "etcd": ["http://etcd:2379"], ` + somePeers),
			"cluster.username: the password goes to etcd without encryption; use https URLs"},
		"keys of one server": {strings.Replace(clusterFile(someEtcd+", "+somePeers), `"server_address": "h"`, `"server_address": "h", "connections": 2, "client_id": "x"`, 1),
			"cluster: connections has no effect in a cluster: each shard has a connection of its own|cluster: client_id has no effect in a cluster: client ids are es-<cluster>-<shard>"},
		"unreachable": {clusterFile(`"etcd": ["http://127.0.0.1:1", "http://etcd:2379"], ` + somePeers),
			"cluster.peer_listen: servers on other machines cannot reach this one at 127.0.0.1:8070; unless all run here, set an address that they reach, or cluster.peer_address"},
		"unreachable address": {clusterFile(`"etcd": ["http://etcd:2379"], "peer_address": "localhost:8070", ` + somePeers),
			"cluster.peer_listen: servers on other machines cannot reach this one at localhost:8070; unless all run here, set an address that they reach, or cluster.peer_address"},
		"reachable": {clusterFile(`"etcd": ["http://etcd:2379"], "peer_address": "10.0.0.1:8070", ` + somePeers), ""},
		"on_stop": {with(minimalD, `"on_stop": "notify", "state_directory": "state", "cluster": {`+someEtcd+", "+somePeers+`}`),
			"cluster: on_stop has no effect in a cluster: a stop hands the cars over to the other servers"},
		"misspelt": {clusterFile(`"replicas": "a", ` + someEtcd + ", " + somePeers), "cluster.replicas: unknown key, ignored; did you mean replica?"},
	} {
		_, warnings := mustLoad(t, c.text)
		var got []string
		for _, w := range warnings {
			got = append(got, w.Key+": "+w.Text)
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestFingerprint: servers with the same fleet have the same fingerprint wherever they
// run, and any setting that cars notice changes it.
func TestFingerprint(t *testing.T) {
	workdir(t)
	base := `"state_directory": "state", "cluster": {` + someEtcd + ", " + somePeers + `}`
	print := func(text string) string {
		cfg, _ := mustLoad(t, text)
		return cfg.Fingerprint()
	}
	want := print(with(minimalD, base))
	for name, text := range map[string]string{
		"place": with(minimalD, `"state_directory": "elsewhere", "admin": {"listen": "127.0.0.1:9"}, "logging": {"console": {"level": "ERROR"}}, "cluster": {"replica": "other", "peer_listen": "127.0.0.2:1", "peer_token": "0123456789abcdef", `+someEtcd+`}`),
		"order": strings.Replace(with(minimalD, base), `{"5": {"lib_path": "lib.so"}}`, `{ "5": { "lib_path" : "lib.so", "config": {} } }`, 1),
	} {
		if got := print(text); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	seen := map[string]string{want: "base"}
	for name, text := range map[string]string{
		"another car":     strings.Replace(with(minimalD, base), `"v": {}`, `"v": {}, "w": {}`, 1),
		"any car":         strings.Replace(with(minimalD, base), `"v": {}`, `"v": {}, "*": {}`, 1),
		"another library": strings.Replace(with(minimalD, base), `"lib.so"`, `"other.so"`, 1),
		"a module's key":  strings.Replace(with(minimalD, base), `{"lib_path": "lib.so"}`, `{"lib_path": "lib.so", "config": {"api_key": "x"}}`, 1),
		"timeout":         with(minimalD, base+`, "timeout": 6`),
		"limits":          with(minimalD, base+`, "limits": {"module_queue": 5}`),
		"broker":          strings.Replace(with(minimalD, base), `"server_address": "h"`, `"server_address": "other"`, 1),
	} {
		got := print(text)
		if other := seen[got]; other != "" {
			t.Errorf("%s and %s have the same fingerprint", name, other)
		}
		seen[got] = name
	}
}
