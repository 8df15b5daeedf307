package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/config"
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
	problems := Check(t.Context(), cfg).Problems
	if len(problems) != len(want) {
		t.Fatalf("%v", problems)
	}
	for i, p := range problems {
		if !strings.HasPrefix(p.String(), path+":"+want[i]) || strings.Contains(p.String(), "planted") {
			t.Errorf("problem %d: %v, want %s", i, p, want[i])
		}
	}
}
