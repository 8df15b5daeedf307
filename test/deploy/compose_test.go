package deploytest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"external-server/internal/support/servertest"
)

// composeFile is what the two files use of the compose format; unknown keys are
// errors, so that a key in the wrong place shows.
type composeFile struct {
	Services map[string]*composeService
	Networks map[string]map[string]string
	Volumes  map[string]map[string]string
}

type composeService struct {
	Image           string
	Build           struct{ Context string }
	Command         []string
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
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&out); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
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
