package deploytest

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"external-server/internal/config"
	"external-server/internal/support/servertest"
)

// composeFile is what the files use of the compose format; unknown keys are
// errors, so that a key in the wrong place shows.
type composeFile struct {
	Services map[string]*composeService
	Networks map[string]map[string]string
	Volumes  map[string]map[string]string
	Shared   yaml.Node `yaml:"x-server"` // what services take over by <<
}

type composeService struct {
	Image           string
	Build           struct{ Context string }
	Command         []string
	Entrypoint      []string
	Environment     map[string]string
	Hostname        string
	Healthcheck     *composeHealth
	Init            bool
	Restart         string
	StopGracePeriod string   `yaml:"stop_grace_period"`
	DependsOn       []string `yaml:"depends_on"`
	Networks        yaml.Node
	Ports           []string
	Volumes         []string
	Ulimits         map[string]int
	ReadOnly        bool `yaml:"read_only"`
	Tmpfs           []string
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
}

type composeHealth struct {
	Test        []string
	Interval    string
	Timeout     string
	StartPeriod string `yaml:"start_period"`
	Retries     int
}

func readCompose(t *testing.T, name string) composeFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servertest.Root(), name))
	if err != nil {
		t.Fatal(err)
	}
	var out composeFile
	decoder := yaml.NewDecoder(bytes.NewReader(interpolate(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&out); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

// variable is one of a compose file, with its default or the error without it.
var variable = regexp.MustCompile(`\$\{([A-Z_]+)(?::-([^}]*)|:\?[^}]*)\}`)

// interpolate does what compose does with variables that are not set; those that have to
// be are.
func interpolate(text []byte) []byte {
	out := variable.ReplaceAllFunc(text, func(found []byte) []byte {
		m := variable.FindSubmatch(found)
		if bytes.Contains(found, []byte(":?")) {
			return []byte("set-by-the-test-0123456789")
		}
		return m[2]
	})
	return bytes.ReplaceAll(out, []byte("$$"), []byte("$"))
}

// Compose takes relative paths from the folder of the first file: every path of ours can
// be led back here.
func TestComposeFilesFromAnotherFolder(t *testing.T) {
	for _, name := range []string{"docker-compose.yml", "compose.full.yml", "compose.cluster.yml"} {
		text, err := os.ReadFile(filepath.Join(servertest.Root(), name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			code, _, _ := strings.Cut(line, "#")
			if strings.Contains(code, " ./") || strings.TrimSpace(code) == "context: ." {
				t.Errorf("%s: %q depends on where compose is called", name, strings.TrimSpace(line))
			}
		}
		if !strings.Contains(string(text), "${EXTERNAL_SERVER_DIR:-.}/") {
			t.Errorf("%s has no path with EXTERNAL_SERVER_DIR", name)
		}
	}
}

// Three servers share the cars: each with a name and a state of its own, the same keys, and
// a configuration that the server's own reader takes.
func TestComposeCluster(t *testing.T) {
	file := readCompose(t, "compose.cluster.yml")
	text, err := os.ReadFile(filepath.Join(servertest.Root(), "config", "for_cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	states := make(map[string]bool)
	for _, name := range []string{"server-1", "server-2", "server-3"} {
		service := file.Services[name]
		if service == nil {
			t.Fatalf("no service %s", name)
		}
		if service.Hostname != name {
			t.Errorf("%s is called %q by the others", name, service.Hostname)
		}
		mounted := mounts(t, file, service)
		if states[mounted["/var/lib/external-server"]] || mounted["/var/lib/external-server/keys"] != "keys" {
			t.Errorf("%s: volumes %v", name, mounted)
		}
		states[mounted["/var/lib/external-server"]] = true
		for _, other := range service.DependsOn {
			if file.Services[other] == nil {
				t.Errorf("%s depends on %s, which is not in the file", name, other)
			}
		}
		// What the command does.
		if len(service.Command) != 1 || !strings.Contains(service.Command[0], "s/REPLICA/$(hostname)/") || !slices.Equal(service.Entrypoint, []string{"/bin/sh", "-ec"}) {
			t.Errorf("%s runs %q %q", name, service.Entrypoint, service.Command)
		}
		path := filepath.Join(t.TempDir(), "config.json")
		write(t, path, strings.ReplaceAll(string(text), "REPLICA", name))
		cfg, _, err := config.LoadElsewhere(path, func(key string) (string, bool) {
			value, ok := service.Environment[key]
			return value, ok
		})
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Cluster == nil || cfg.Cluster.PeerAddress != name+":8070" {
			t.Errorf("%s: cluster %+v", name, cfg.Cluster)
		}
		for _, host := range []string{cfg.Broker.Host, strings.TrimSuffix(strings.TrimPrefix(cfg.Cluster.Etcd[0], "http://"), ":2379")} {
			if file.Services[host] == nil {
				t.Errorf("%s uses %s, which is not in the file", name, host)
			}
		}
		if !strings.Contains(cfg.HTTPAPI.Store.Reveal(), "@postgres:") || file.Services["postgres"] == nil {
			t.Error("the store is not the database of the file")
		}
	}
}

// networks are the names of a service's networks, a list or a mapping.
func (s *composeService) networks(t *testing.T) []string {
	t.Helper()
	if s.Networks.Kind == yaml.MappingNode {
		var m map[string]any
		if err := s.Networks.Decode(&m); err != nil {
			t.Fatal(err)
		}
		var out []string
		for name := range m {
			out = append(out, name)
		}
		return out
	}
	var out []string
	if err := s.Networks.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestComposeFiles(t *testing.T) {
	_, stages := parseDockerfile(t, filepath.Join(servertest.Root(), "Dockerfile"))
	image := stages[len(stages)-1]
	for name, services := range map[string][]string{
		"docker-compose.yml": {"external-server"},
		"compose.full.yml":   {"external-server", "mosquitto"},
	} {
		t.Run(name, func(t *testing.T) {
			file := readCompose(t, name)
			if len(file.Services) != len(services) {
				t.Errorf("%d services, expected %v", len(file.Services), services)
			}
			for _, wanted := range services {
				service := file.Services[wanted]
				if service == nil {
					t.Fatalf("no service %s", wanted)
				}
				if !slices.Contains(service.networks(t), "bring-emulator") {
					t.Errorf("%s is not in the network bring-emulator", wanted)
				}
				for _, network := range service.networks(t) {
					if _, ok := file.Networks[network]; !ok {
						t.Errorf("%s: the network %s is not declared", wanted, network)
					}
				}
				for _, other := range service.DependsOn {
					if file.Services[other] == nil {
						t.Errorf("%s depends on %s, which is not in the file", wanted, other)
					}
				}
			}
			server := file.Services["external-server"]
			command := server.Command
			if command == nil {
				command = image.one(t, "CMD").exec(t)
			}
			mounted := mounts(t, file, server)
			for _, volume := range image.one(t, "VOLUME").exec(t) {
				if mounted[volume] == "" {
					t.Errorf("nothing is mounted at %s", volume)
				}
			}
			// The configuration that the command names is in the mounted folder.
			config := command[len(command)-1]
			source := mounted[filepath.Dir(config)]
			if _, err := os.Stat(filepath.Join(servertest.Root(), source, filepath.Base(config))); source == "" || err != nil {
				t.Errorf("the command reads %s, which is not in %q: %v", config, source, err)
			}
			if check := server.Healthcheck; check != nil && (check.Test[0] != "CMD" || !slices.Contains(check.Test, config)) {
				t.Errorf("the health check %v is not about %s", check.Test, config)
			}
			if server.StopGracePeriod != grace.String() {
				t.Errorf("stop_grace_period %q, expected %v", server.StopGracePeriod, grace)
			}
			if !server.Init || !server.ReadOnly || !slices.Contains(server.CapDrop, "ALL") || !slices.Contains(server.SecurityOpt, "no-new-privileges:true") {
				t.Error("the service is less hardened than it could be")
			}
		})
	}
}

// mounts returns what is mounted where; sources in the project must exist, and
// volumes must be declared.
func mounts(t *testing.T, file composeFile, service *composeService) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, v := range service.Volumes {
		parts := strings.Split(v, ":")
		out[parts[1]] = parts[0]
		if strings.HasPrefix(parts[0], ".") {
			if _, err := os.Stat(filepath.Join(servertest.Root(), parts[0])); err != nil {
				t.Errorf("volume %s: %v", v, err)
			}
		} else if _, ok := file.Volumes[parts[0]]; !ok {
			t.Errorf("the volume %s is not declared", parts[0])
		}
	}
	return out
}
