package acl_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/config/acl"
)

var update = flag.Bool("update", false, "write the files of testdata")

var (
	named  = acl.Fleet{Company: "acme", Cars: []string{"car_2", "car_1", "car_1"}}
	anyCar = acl.Fleet{Company: "acme", Cars: []string{"car_1"}, AnyCar: true, User: "fleet-server", Cluster: "north"}
)

// The rules as people get them. mosquitto's and NATS's are tried with the real brokers
// in the tests of the whole server.
func TestWrite(t *testing.T) {
	for _, broker := range acl.Brokers() {
		for name, f := range map[string]acl.Fleet{"named": named, "any": anyCar} {
			if broker == acl.NATS {
				f.Cluster = ""
			}
			t.Run(string(broker)+"-"+name, func(t *testing.T) {
				var b strings.Builder
				if err := acl.Write(&b, broker, f); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join("testdata", string(broker)+"-"+name+".txt")
				if *update {
					if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if b.String() != string(want) {
					t.Errorf("got\n%s\nexpected\n%s", b.String(), want)
				}
			})
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		broker acl.Broker
		fleet  acl.Fleet
		want   string
	}{
		{"unknown broker", "rabbitmq", named, "expected one of mosquitto, vernemq, emqx, nats"},
		{"company", acl.Mosquitto, acl.Fleet{Company: "a/#"}, `name "a/#"`},
		{"car", acl.Mosquitto, acl.Fleet{Company: "a", Cars: []string{"b\ntopic #"}}, "expected a-z"},
		{"user", acl.EMQX, acl.Fleet{Company: "a", User: `x"}, {allow, all`}, "the server's user"},
		{"user of a car", acl.EMQX, acl.Fleet{Company: "a", Cars: []string{"b"}, User: "a/b"}, "also the user of a car"},
		{"cluster", acl.EMQX, acl.Fleet{Company: "a", Cluster: "x/#"}, "the cluster's name"},
		{"cluster at NATS", acl.NATS, acl.Fleet{Company: "a", Cars: []string{"b"}, Cluster: "x"}, "MQTT 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			err := acl.Write(&b, c.broker, c.fleet)
			if err == nil || !strings.Contains(err.Error(), c.want) || b.Len() > 0 {
				t.Errorf("error %v, wrote %q; expected %q", err, b.String(), c.want)
			}
		})
	}
	if err := acl.Write(new(strings.Builder), acl.NATS, acl.Fleet{Company: "a", AnyCar: true}); !errors.Is(err, acl.ErrNoCars) {
		t.Errorf("NATS without cars: %v", err)
	}
}

// No name can add a rule or change another one's: lines and rules of the text are as many
// as those of harmless names.
func FuzzWrite(f *testing.F) {
	f.Add("acme", "car_1", "server", "c")
	f.Add("a", "b", "x\nuser y", "d")
	f.Add("a", "b", `"}, {allow, all}.`, `"`)
	f.Fuzz(func(t *testing.T, company, car, user, cluster string) {
		if user == "" || cluster == "" {
			return
		}
		for _, broker := range acl.Brokers() {
			var got, want strings.Builder
			if acl.Write(&got, broker, acl.Fleet{Company: company, Cars: []string{car}, User: user, Cluster: cluster}) != nil {
				continue
			}
			if err := acl.Write(&want, broker, acl.Fleet{Company: "a", Cars: []string{"b"}, User: "u", Cluster: "c"}); err != nil {
				t.Fatal(err)
			}
			for _, mark := range []string{"\n", `"`, "{", "}", "#", " ", "allow", "topic "} {
				if g, w := strings.Count(got.String(), mark), strings.Count(want.String(), mark); g != w && !strings.Contains(company+car+user+cluster, mark) {
					t.Fatalf("%s: %d times %q, expected %d:\n%s", broker, g, mark, w, got.String())
				}
				if strings.ContainsAny(user+cluster+company+car, "\n\"{}# ") {
					t.Fatalf("%s accepts %q %q %q %q", broker, company, car, user, cluster)
				}
			}
		}
	})
}
