// Package helm tests the Helm chart: it is rendered by Helm's own library, decoded
// strictly into the types of Kubernetes, and the configuration in it is read by the
// server's own reader.
//
// It holds tests only, in a Go module of its own.
package helm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	"external-server/internal/config"
)

const chartFolder = "../../deploy/helm/external-server"

// render returns the documents of the chart by kind and name.
func render(t *testing.T, values string) (map[string][]byte, error) {
	t.Helper()
	chart, err := loader.LoadDir(chartFolder)
	if err != nil {
		t.Fatal(err)
	}
	given, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(chart, given, chartutil.ReleaseOptions{Name: "fleet", Namespace: "cars", Revision: 1, IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte)
	for name, text := range files {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for _, part := range strings.Split(text, "\n---") {
			var head struct {
				Kind     string
				Metadata struct{ Name string }
			}
			if err := yaml.Unmarshal([]byte(part), &head); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, part)
			}
			if head.Kind != "" {
				out[head.Kind+"/"+head.Metadata.Name] = []byte(part)
			}
		}
	}
	return out, nil
}

// serviceMonitor is what the chart uses of the operator's resource.
type serviceMonitor struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Selector struct {
			MatchLabels      map[string]string `json:"matchLabels"`
			MatchExpressions []struct {
				Key      string `json:"key"`
				Operator string `json:"operator"`
			} `json:"matchExpressions"`
		} `json:"selector"`
		Endpoints []struct {
			Port          string `json:"port"`
			Path          string `json:"path"`
			Interval      string `json:"interval"`
			Authorization struct {
				Type        string                   `json:"type"`
				Credentials corev1.SecretKeySelector `json:"credentials"`
			} `json:"authorization"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// decode reads every document strictly: a key that Kubernetes does not know is an error.
func decode(t *testing.T, documents map[string][]byte) (stateful *appsv1.StatefulSet, secrets map[string]*corev1.Secret) {
	t.Helper()
	stateful, secrets = &appsv1.StatefulSet{}, make(map[string]*corev1.Secret)
	for name, text := range documents {
		kind, own, _ := strings.Cut(name, "/")
		var into any
		switch kind {
		case "StatefulSet":
			into = stateful
		case "Secret":
			secrets[own] = &corev1.Secret{}
			into = secrets[own]
		case "Service":
			into = &corev1.Service{}
		case "ServiceAccount":
			into = &corev1.ServiceAccount{}
		case "PodDisruptionBudget":
			into = &policyv1.PodDisruptionBudget{}
		case "NetworkPolicy":
			into = &networkingv1.NetworkPolicy{}
		case "ServiceMonitor":
			into = &serviceMonitor{}
		default:
			t.Errorf("unexpected %s", name)
			continue
		}
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	return stateful, secrets
}

const oneServer = "config: {company_name: acme}"

const cluster = `
replicas: 3
cluster: {enabled: true, etcd: ["http://etcd-0.etcd:2379"], name: north}
image: {digest: "sha256:` + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" + `"}
config:
  company_name: acme
  external_communication: {protocol: MQTT, server_address: broker, server_port: 1883}
  http_api: {listen: "0.0.0.0:8080", store: "postgres://api@db/api", keys_file: /etc/keys.json}
brokerSecret: broker
service: {ports: {http-api: 8080}}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
networkPolicy: {enabled: true, adminFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}
extraEnv: [{name: LD_LIBRARY_PATH, value: /opt/mine}]
extraVolumes: [{name: mine, emptyDir: {}}]
extraVolumeMounts: [{name: mine, mountPath: /opt/mine}]
tolerations: [{operator: Exists}]
podLabels: {team: fleet}
`

func TestChart(t *testing.T) {
	for _, c := range []struct {
		name, values string
		kinds        []string
		replicas     int32
	}{
		{"one server", oneServer, nil, 1},
		{"without volume and admin endpoint", oneServer + "\npersistence: {enabled: false}\nadmin: {enabled: false}", nil, 1},
		{"cluster", cluster, []string{"PodDisruptionBudget/fleet-external-server", "ServiceMonitor/fleet-external-server", "NetworkPolicy/fleet-external-server", "Service/fleet-external-server"}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			documents, err := render(t, c.values)
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range append(c.kinds, "StatefulSet/fleet-external-server", "Service/fleet-external-server-peers", "ServiceAccount/fleet-external-server") {
				if documents[kind] == nil {
					t.Errorf("there is no %s", kind)
				}
			}
			stateful, secrets := decode(t, documents)
			if *stateful.Spec.Replicas != c.replicas || stateful.Spec.ServiceName != "fleet-external-server-peers" {
				t.Errorf("%d replicas of service %q", *stateful.Spec.Replicas, stateful.Spec.ServiceName)
			}
			podOf(t, stateful)
			configurationOf(t, secrets["fleet-external-server-config"], stateful, c.replicas > 1)
		})
	}
}

// podOf checks what keeps a pod safe and alive, and that everything mounted exists.
func podOf(t *testing.T, s *appsv1.StatefulSet) {
	t.Helper()
	pod := s.Spec.Template.Spec
	if pod.SecurityContext == nil || !*pod.SecurityContext.RunAsNonRoot || *pod.SecurityContext.RunAsUser != 10001 {
		t.Error("the pod does not run as user 10001")
	}
	volumes := make(map[string]bool)
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, v := range s.Spec.VolumeClaimTemplates {
		volumes[v.Name] = true
	}
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		security := container.SecurityContext
		if security == nil || *security.AllowPrivilegeEscalation || !*security.ReadOnlyRootFilesystem || len(security.Capabilities.Drop) != 1 {
			t.Errorf("%s is less hardened than it could be", container.Name)
		}
		for _, m := range container.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s mounts %s, which does not exist", container.Name, m.Name)
			}
		}
	}
	server := pod.Containers[0]
	if server.LivenessProbe == nil || server.ReadinessProbe == nil || server.StartupProbe == nil {
		t.Error("a probe is missing")
	}
	for key, value := range s.Spec.Selector.MatchLabels {
		if s.Spec.Template.Labels[key] != value {
			t.Errorf("the selector wants %s=%s, the pods have %v", key, value, s.Spec.Template.Labels)
		}
	}
}

// configurationOf lets the server read the configuration of the first pod.
func configurationOf(t *testing.T, secret *corev1.Secret, s *appsv1.StatefulSet, clustered bool) {
	t.Helper()
	if secret == nil {
		t.Fatal("there is no configuration")
	}
	path := filepath.Join(t.TempDir(), "config.json")
	text := strings.ReplaceAll(string(secret.Data["config.json"]), "@POD@", s.Name+"-0")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{}
	for _, e := range s.Spec.Template.Spec.Containers[0].Env {
		environment[e.Name] = "0123456789abcdef"
	}
	cfg, warnings, err := config.LoadElsewhere(path, func(key string) (string, bool) { v, ok := environment[key]; return v, ok })
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, w := range warnings {
		if !strings.Contains(w.String(), "not encrypted") {
			t.Errorf("warning: %v", w)
		}
	}
	if cfg.Company != "acme" || cfg.StateDirectory != "/var/lib/external-server/state" {
		t.Errorf("company %q, state in %q", cfg.Company, cfg.StateDirectory)
	}
	switch {
	case !clustered && cfg.Cluster != nil:
		t.Error("one server is a cluster")
	case clustered && cfg.Cluster == nil:
		t.Error("the servers are no cluster")
	case clustered && (cfg.Cluster.Name != "north" || cfg.Cluster.PeerAddress != "fleet-external-server-0.fleet-external-server-peers.cars.svc:8070"):
		t.Errorf("cluster %+v", cfg.Cluster)
	}
}

// Mistakes are said before anything is installed.
func TestChartRefuses(t *testing.T) {
	for _, c := range []struct{ name, values, want string }{
		{"unknown value", "replicaCount: 3", "replicaCount"},
		{"replicas without cluster", oneServer + "\nreplicas: 3", "cluster.enabled"},
		{"cluster without etcd", "cluster: {enabled: true}", "cluster.etcd"},
		{"monitor without admin", "admin: {enabled: false}\nserviceMonitor: {enabled: true}", "admin.enabled"},
		{"company", "config: {company_name: null}", "company_name"},
		{"digest", "image: {digest: latest}", "digest"},
		{"port", "service: {ports: {admin: 1}}", "invalid propertyName"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := render(t, c.values); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected %q", err, c.want)
			}
		})
	}
}

// Every value has a schema, and every schema a value.
func TestValuesHaveASchema(t *testing.T) {
	var schema struct{ Properties map[string]any }
	text, err := os.ReadFile(filepath.Join(chartFolder, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	values, err := chartutil.ReadValuesFile(filepath.Join(chartFolder, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for key := range values {
		if schema.Properties[key] == nil {
			t.Errorf("values.schema.json does not know %s", key)
		}
	}
	for key := range schema.Properties {
		if _, ok := values[key]; !ok && key != "global" {
			t.Errorf("values.yaml does not have %s", key)
		}
	}
}
