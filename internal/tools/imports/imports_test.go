// Package imports holds the test of who may know whom: what docs/architecture.md
// says in words.
package imports

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "external-server/"

// published is what the path of the SDK begins with, which others fetch.
const published = "github.com/fleet-protocol/external-server/"

// own returns the name of a package of the project in docs/architecture.md.
func own(path string) (string, bool) {
	if path == "example-go" {
		return "modules/example-go", true
	}
	for _, prefix := range []string{root, published} {
		if name, ok := strings.CutPrefix(path, prefix); ok {
			return name, true
		}
	}
	return path, false
}

// everything marks a package that may know all others.
const everything = "*"

// may lists, for each package, the packages of the project it may import besides
// those that come with them. A new package gets a line here, and a row in
// docs/architecture.md.
func may() map[string][]string {
	return map[string][]string{
		"cmd/bench":                       {"internal/lab/bench", "internal/module/host"},
		"cmd/external-server":             {everything},
		"internal/admin":                  {"internal/admin/carlist", "internal/admin/commander", "internal/admin/reply", "internal/car", "internal/cluster", "internal/config", "internal/fleet", "internal/httpapi/crowd", "internal/httpapi/forwarded", "internal/link", "internal/logging", "internal/module", "internal/observe", "internal/observe/alerts", "internal/observe/history", "internal/peer", "internal/state/process", "internal/session", "internal/config/tlsfiles"},
		"internal/admin/carlist":          {},
		"internal/admin/commander":        {},
		"internal/admin/reply":            {},
		"internal/app":                    {everything},
		"internal/app/check":              {"internal/app/modules", "internal/cluster", "internal/cluster/etcd", "internal/config", "internal/config/tlsfiles", "internal/fleet", "internal/httpapi", "internal/httpapi/keys", "internal/httpapi/store", "internal/logging"},
		"internal/app/journals":           {"internal/car", "internal/config", "internal/fleet", "internal/journal", "internal/link/mqtt", "internal/module", "internal/observe", "internal/session/record", "internal/state"},
		"internal/app/modules":            {"internal/car", "internal/config", "internal/fleet", "internal/httpapi", "internal/module", "internal/module/cabi", "internal/module/fleetapi", "internal/module/host"},
		"internal/app/replica":            {"internal/app/journals", "internal/app/roster", "internal/cluster", "internal/cluster/etcd", "internal/cluster/fence", "internal/config", "internal/config/address", "internal/config/tlsfiles", "internal/fleet", "internal/httpapi/core", "internal/link", "internal/link/mqtt", "internal/link/shards", "internal/logging", "internal/module", "internal/observe", "internal/peer", "internal/session/record", "internal/state"},
		"internal/app/roster":             {"internal/app/journals", "internal/app/modules", "internal/car", "internal/config", "internal/fleet", "internal/link", "internal/logging", "internal/observe", "internal/protocol", "internal/session", "internal/session/record"},
		"internal/app/sdnotify":           {},
		"internal/broker":                 {"internal/link/mqtt/quickack", "internal/logging"},
		"internal/car":                    {"internal/fleet", "internal/link", "internal/logging", "internal/module", "internal/protocol", "internal/session", "internal/session/record"},
		"internal/cluster":                {},
		"internal/cluster/etcd":           {"internal/cluster"},
		"internal/cluster/fence":          {"internal/fleet", "internal/link", "internal/link/mqtt/quickack", "internal/link/mqtt/wire", "internal/session"},
		"internal/config":                 {"internal/config/address", "internal/config/document", "internal/config/files", "internal/fleet", "internal/module", "internal/module/spool"},
		"internal/config/acl":             {"internal/fleet"},
		"internal/config/address":         {},
		"internal/config/document":        {},
		"internal/config/files":           {"internal/config/document"},
		"internal/config/manual":          {"internal/config"},
		"internal/config/tlsfiles":        {"internal/config"},
		"internal/console":                {"internal/fleet", "internal/link/mqtt/wire", "internal/logging", "internal/state/process", "internal/protocol"},
		"internal/console/health":         {"internal/config", "internal/config/tlsfiles"},
		"internal/fleet":                  {},
		"internal/httpapi":                {"internal/config", "internal/fleet"},
		"internal/httpapi/core":           {"internal/fleet", "internal/httpapi", "internal/httpapi/store"},
		"internal/httpapi/keys":           {},
		"internal/httpapi/server":         {"internal/config", "internal/config/tlsfiles", "internal/fleet", "internal/httpapi", "internal/httpapi/core", "internal/httpapi/crowd", "internal/httpapi/forwarded", "internal/httpapi/keys", "internal/httpapi/store", "internal/peer"},
		"internal/httpapi/store":          {"internal/fleet", "internal/httpapi"},
		"internal/httpapi/crowd":          {},
		"internal/httpapi/forwarded":      {},
		"internal/journal":                {},
		"internal/lab/bench":              {everything},
		"internal/lab/capture":            {"internal/fleet"},
		"internal/lab/demo":               {"internal/config", "internal/fleet", "internal/httpapi", "internal/lab/gateway", "internal/lab/vehicle", "internal/module/check", "internal/lab/freeport"},
		"internal/lab/freeport":           {},
		"internal/lab/gateway":            {"internal/fleet", "internal/link/mqtt/wire", "internal/protocol"},
		"internal/lab/simulate":           {"internal/fleet", "internal/lab/gateway", "internal/lab/vehicle"},
		"internal/lab/trial":              {"internal/app", "internal/config", "internal/fleet", "internal/lab/gateway", "internal/module/check"},
		"internal/lab/vehicle":            {},
		"internal/link":                   {"internal/fleet"},
		"internal/link/mqtt":              {"internal/fleet", "internal/link", "internal/link/mqtt/barrier", "internal/link/mqtt/bootclock", "internal/link/mqtt/counts", "internal/link/mqtt/inflight", "internal/link/mqtt/liveness", "internal/link/mqtt/outbox", "internal/link/mqtt/pace", "internal/link/mqtt/reason", "internal/link/mqtt/reports", "internal/link/mqtt/socket", "internal/link/mqtt/terms", "internal/link/mqtt/topics", "internal/link/mqtt/wire"},
		"internal/link/mqtt/reason":       {"internal/link/mqtt/wire"},
		"internal/link/mqtt/reports":      {"internal/logging"},
		"internal/link/mqtt/terms":        {"internal/link/mqtt/wire"},
		"internal/link/mqtt/topics":       {"internal/fleet"},
		"internal/link/mqtt/inflight":     {"internal/link", "internal/link/mqtt/wire"},
		"internal/link/mqtt/counts":       {"internal/link"},
		"internal/link/mqtt/bootclock":    {},
		"internal/link/mqtt/quickack":     {},
		"internal/link/mqtt/pace":         {"internal/link/mqtt/direct"},
		"internal/link/mqtt/socket":       {"internal/link/mqtt/direct", "internal/link/mqtt/reason"},
		"internal/link/mqtt/wire":         {},
		"internal/link/shards":            {"internal/fleet", "internal/link"},
		"internal/logging":                {},
		"internal/module":                 {"internal/fleet", "internal/logging", "sdk/module/moduleproto"},
		"internal/module/cabi":            {"internal/fleet", "internal/logging", "internal/module", "sdk/module/moduleproto"},
		"internal/module/check":           {"internal/fleet", "internal/module", "internal/module/cabi", "internal/module/host"},
		"internal/module/fleetapi":        {"internal/config", "internal/fleet", "internal/httpapi", "internal/logging", "internal/module", "internal/module/spool"},
		"internal/module/guest":           {"internal/fleet", "internal/module", "sdk/boundary", "sdk/module/moduleproto"},
		"internal/module/host":            {"internal/fleet", "internal/logging", "internal/module", "internal/module/cabi", "internal/module/guest", "sdk/boundary", "sdk/module/moduleproto"},
		"internal/module/spool":           {},
		"internal/observe":                {"internal/broker", "internal/car", "internal/cluster", "internal/fleet", "internal/httpapi/server", "internal/link", "internal/logging", "internal/module", "internal/module/fleetapi", "internal/observe/alerts", "internal/observe/history", "internal/session"},
		"internal/observe/alerts":         {"internal/observe/history"},
		"internal/observe/history":        {},
		"internal/peer":                   {"internal/config", "internal/httpapi/crowd", "internal/config/tlsfiles"},
		"internal/protocol":               {"internal/fleet", "internal/protocol/externalproto", "internal/protocol/internalproto"},
		"internal/protocol/externalproto": {"internal/protocol/internalproto"},
		"internal/protocol/internalproto": {},
		"internal/session":                {"internal/fleet", "internal/session/commands", "internal/session/contention", "internal/session/order", "internal/session/owed", "internal/session/record", "internal/session/settings"},
		"internal/session/commands":       {"internal/fleet", "internal/session/record"},
		"internal/session/contention":     {},
		"internal/session/order":          {"internal/fleet", "internal/session/record"},
		"internal/session/owed":           {"internal/fleet", "internal/session/record"},
		"internal/session/record":         {"internal/fleet"},
		"internal/session/settings":       {},
		"internal/state":                  {"internal/journal", "internal/state/process", "internal/state/vigil"},
		"internal/state/process":          {},
		"internal/state/vigil":            {},
		"internal/support/apitest":        {"internal/config", "internal/fleet", "internal/httpapi", "internal/support/postgrestest", "internal/support/testleak"},
		"internal/support/badnetwork":     {},
		"internal/support/brokertest":     {"internal/link/mqtt/wire", "internal/lab/freeport", "internal/support/mosquitto", "internal/support/testlog", "internal/support/testneed", "internal/support/testwait", "internal/support/tied"},
		"internal/support/etcdtest":       {"internal/support/brokertest", "internal/support/testlog", "internal/support/testneed", "internal/support/testwait", "internal/support/tied"},
		"internal/support/postgrestest":   {"internal/support/testneed", "internal/support/testwait", "internal/support/tied"},
		"internal/support/idlemodule":     {"internal/fleet", "internal/module", "internal/module/guest", "sdk/boundary"},
		"internal/support/mosquitto":      {"internal/support/tied"},
		"internal/support/mutants":        {},
		"internal/support/scripttest":     {"internal/fleet"},
		"internal/support/servertest":     {"internal/support/testwait"},
		"internal/support/testchild":      {},
		"internal/support/testleak":       {},
		"internal/support/testlog":        {},
		"internal/support/testneed":       {},
		"internal/support/testwait":       {},
		"internal/support/tied":           {},
		"modules/example-go":              {"sdk/module"},
		"sdk/boundary":                    {"sdk/module/moduleproto"},
		"sdk/module":                      {"sdk/boundary", "sdk/module/moduleproto"},
		"sdk/module/moduleproto":          {},
		"sdk/moduletest":                  {"sdk/module"},
		"test/boundary":                   {everything},
		"test/carrier":                    {everything},
		"test/library":                    {everything},
		"test/sim":                        {"internal/fleet", "internal/session", "internal/session/record"},
		"test/web":                        {everything},
	}
}

// inServer tells whether the package belongs to the server itself. Its commands, one of
// which simulates cars, and what is around it do not.
func inServer(name string) bool {
	return strings.HasPrefix(name, "internal/") && !strings.HasPrefix(name, "internal/lab/") &&
		!strings.HasPrefix(name, "internal/support/") && !strings.HasPrefix(name, "internal/tools/")
}

func TestImportsPointInwards(t *testing.T) {
	var out []byte
	for _, m := range modules(t) {
		out = append(out, list(t, m, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")...)
	}
	rules := may()
	rooms, err := os.ReadFile("../../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name, _ := own(fields[0])
		if !strings.Contains(string(rooms), "`"+name+"`") {
			t.Errorf("%s has no row in the table of rooms of docs/architecture.md", name)
		}
		var imported []string
		for _, i := range fields[1:] {
			if p, ok := own(i); ok {
				imported = append(imported, p)
			}
			if i == "C" && name != "internal/module/cabi" {
				t.Errorf("%s uses cgo; only internal/module/cabi may", name)
			}
		}
		allowed, known := rules[name]
		if !known && len(imported) > 0 && !strings.HasPrefix(name, "internal/tools/") {
			t.Errorf("%s is not in the table of this test; add what it may import, and a row in docs/architecture.md", name)
			continue
		}
		for _, i := range imported {
			// What observes and operates the server does not know which transport carries
			// messages and how a module is run.
			if slices.Contains([]string{"internal/link/mqtt", "internal/module/host"}, i) && !slices.Contains(
				[]string{"cmd/bench", "cmd/external-server", "internal/app", "internal/app/journals", "internal/app/modules", "internal/app/replica", "internal/lab/bench", "internal/module/check"}, name) {
				t.Errorf("%s imports %s; use the interfaces in internal/link and internal/module", name, i)
			}
			// The server does not know the cars that are simulated around it, nor tests.
			if inServer(name) && (strings.HasPrefix(i, "internal/lab/") || strings.HasPrefix(i, "internal/support/") || strings.HasPrefix(i, "internal/tools/")) {
				t.Errorf("%s imports %s, which is no part of the server", name, i)
			}
			if !slices.Contains(allowed, i) && !slices.Contains(allowed, everything) && known {
				t.Errorf("%s imports %s; see the table of this test and docs/architecture.md", name, i)
			}
		}
	}
	// The core reaches nothing outside itself.
	for _, i := range strings.Fields(list(t, ".", "-f", `{{join .Imports " "}}`, "./internal/session/...")) {
		if slices.Contains([]string{"os", "net", "net/http", "log", "log/slog", "sync", "math/rand", "math/rand/v2", "context"}, i) {
			t.Errorf("the core imports %s: it does no I/O, starts nothing and knows no clock", i)
		}
	}
}

// largest bounds the lines of a product package, without its tests: what is more is several
// subjects.
const largest = 3000

// TestPackagesAreSmall: a package of the server is no longer than one can know.
func TestPackagesAreSmall(t *testing.T) {
	for line := range strings.Lines(list(t, ".", "-f", `{{.ImportPath}} {{.Dir}} {{join .GoFiles " "}} {{join .CgoFiles " "}}`, "./internal/...", "./cmd/...")) {
		fields := strings.Fields(line)
		name, _ := own(fields[0])
		if !inServer(name) && !strings.HasPrefix(name, "cmd/") {
			continue
		}
		lines := 0
		for _, file := range fields[2:] {
			if strings.HasSuffix(file, ".pb.go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(fields[1], file))
			if err != nil {
				t.Fatal(err)
			}
			lines += strings.Count(string(text), "\n")
		}
		if lines > largest {
			t.Errorf("%s has %d lines; expected %d at most: make a package of what is a subject of its own", name, lines, largest)
		}
	}
}
