package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"external-server/internal/lab/simulate"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
)

// `simulate` drives a server over mutual TLS, on shared connections and with one per
// car, and writes one JSON report; its mistakes are errors that say what to do.
func TestSimulateCommand(t *testing.T) {
	t.Parallel()
	certs := brokertest.NewCerts(t)
	m := brokertest.Start(t, brokertest.Options{Certs: certs})
	config := formatD(m.Address(), exampleModule(t), "*")
	setBroker(config, m, obj{"ca_certs_file": certs.CAFile, "cert_file": certs.Client.CertFile, "key_file": certs.Client.KeyFile})
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	base := []string{"simulate", "--broker", m.Address(), "--ca", certs.CAFile, "--cert", certs.Client.CertFile, "--key", certs.Client.KeyFile,
		"--company", company, "--cars", "4", "--duration", "1s", "--check"}
	for name, more := range map[string][]string{
		"rate":   {"--rate", "10", "--prefix", "rate_", "--seed", "7"},
		"closed": {"--closed", "--prefix", "closed_"},
		"own":    {"--closed", "--connections", "-1", "--prefix", "own_"},
	} {
		out, progress, code := servertest.Run(t, t.TempDir(), append(base[:len(base):len(base)], more...)...)
		var r simulate.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
			t.Fatalf("%s: exit code %d, %v\n%s\n%s", name, code, err, out, progress)
		}
		if r.EverConnected != 4 || r.Answered == 0 || r.Commands < 8 || r.Lost() != 0 || r.Guilty() != 0 || r.Latency.P50 <= 0 {
			t.Errorf("%s: %s", name, out)
		}
		if name == "rate" && (r.Planned != 40 || r.Answered != 40 || r.Seed != 7) {
			t.Errorf("%s: %s", name, out)
		}
	}
	for _, c := range []struct {
		name, text string
		args       []string
	}{
		{"no company", "--company", []string{"simulate"}},
		{"nobody answers", "does it run, on this broker, for this company", append(base[:len(base):len(base)], "--company", "nobody", "--connect-timeout", "1s")},
		{"no broker", "connect to 127.0.0.1:1", []string{"simulate", "--company", "a", "--broker", "127.0.0.1:1"}},
		{"bad probability", "expected 0 to 1", []string{"simulate", "--company", "a", "--lose", "2"}},
		{"rate and closed", "rate", []string{"simulate", "--company", "a", "--rate", "1", "--closed"}},
	} {
		_, text, code := servertest.Run(t, t.TempDir(), c.args...)
		if code == 0 || !strings.Contains(text, c.text) {
			t.Errorf("%s: exit code %d, %q", c.name, code, text)
		}
	}
}
