package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/lab/vehicle"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

const company = "acme"

var button1 = fleet.Device{Module: 1000, Type: 0, Role: "button", Name: "green_button"}

// server is a running server, its admin endpoint and its embedded broker.
type server struct {
	*servertest.Server
	url    string // of the dashboard, with slash
	broker gateway.Broker
	config servertest.Map
}

var listening = regexp.MustCompile(`admin endpoint.*listen=([0-9.:]+)\s`)

// startServer serves the cars with the example module in a process of its own,
// and with the mission module when missions is set.
func startServer(t testing.TB, names []string, missions bool, admin servertest.Map) *server {
	t.Helper()
	config := prepare(t, names, missions, admin)
	return launch(t, config, config["embedded_broker"].(servertest.Map)["listen"].(string))
}

// prepare makes the configuration of startServer.
func prepare(t testing.TB, names []string, missions bool, admin servertest.Map) servertest.Map {
	t.Helper()
	cars := servertest.Map{}
	for _, n := range names {
		cars[n] = servertest.Map{}
	}
	block := servertest.Map{"listen": "127.0.0.1:0"}
	for k, v := range admin {
		block[k] = v
	}
	brokerAddress := brokertest.FreeAddress(t)
	config := servertest.Map{
		"company_name":    company,
		"embedded_broker": servertest.Map{"listen": brokerAddress},
		"admin":           block,
		"timeout":         30, // a busy machine must lose no car
		"common_modules": servertest.Map{
			"1000": servertest.Map{"lib_path": servertest.Example(t), "config": servertest.Map{"command_interval_ms": "2000"}},
		},
		"cars": cars,
		"logging": servertest.Map{
			"console": servertest.Map{"level": "INFO", "use": true}, "file": servertest.Map{"level": "INFO", "use": false},
		},
	}
	if missions {
		config["http_api"] = servertest.Map{"listen": brokertest.FreeAddress(t), "store": "sqlite:" + t.TempDir() + "/fleet.db"}
		config["common_modules"].(servertest.Map)["1"] = servertest.Map{"builtin": "mission"}
	}
	return config
}

func launch(t testing.TB, config servertest.Map, brokerAddress string) *server {
	t.Helper()
	s := &server{Server: servertest.Start(t, servertest.Options{Config: config}), broker: gateway.Broker{Address: brokerAddress}, config: config}
	s.WaitLog("connected to the broker")
	var found []string
	testwait.Until(t, "the log names the address of the admin endpoint", func() bool {
		found = listening.FindStringSubmatch(s.Log())
		return found != nil
	})
	s.url = "http://" + found[1] + "/"
	return s
}

// get reads a resource of the REST interface.
func get[T any](t testing.TB, s *server, path, token string) (out T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, answer.Status)
	}
	if err := json.NewDecoder(bufio.NewReader(answer.Body)).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// states counts the cars.
func states(t testing.TB, s *server, token string) map[string]int {
	t.Helper()
	type info struct {
		Cars map[string]int `json:"cars"`
	}
	return get[info](t, s, "api/v1/server", token).Cars
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("car_%04d", i)
	}
	return out
}

var timing = gateway.Timing{
	RetryPause: 300 * time.Millisecond, MessageTimeout: 30 * time.Second, LinkTimeout: 30 * time.Second,
	StatusTimeout: 30 * time.Second, QueuePoll: 50 * time.Millisecond, LeaveStall: 50 * time.Millisecond,
}

// connect starts gateways with a button each, on shared connections.
func connect(t testing.TB, s *server, cars []string) map[string]*gateway.Gateway {
	t.Helper()
	pool, err := gateway.NewPool(s.broker, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	out := make(map[string]*gateway.Gateway, len(cars))
	for _, name := range cars {
		g, err := gateway.Start(gateway.Settings{
			Car: fleet.CarID{Company: company, Car: name}, Pool: pool, Core: gateway.Options{Timing: timing, Steady: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		out[name] = g
		g.Status(button1, []byte(`{"pressed": false}`), time.Time{})
	}
	return out
}

// driver is a mission device that drives a round.
type driver struct {
	autonomy *vehicle.Autonomy
	last     time.Time
}

func (d *driver) Identity() fleet.Device {
	return fleet.Device{Module: 1, Type: 1, Role: "driving", Name: "autonomy"}
}

func (d *driver) Status() ([]byte, bool) {
	now := time.Now()
	d.autonomy.Advance(now.Sub(d.last) * 10)
	d.last = now
	return d.autonomy.Status(), true
}

func (d *driver) Command(data []byte) { _, _ = d.autonomy.Command(data) }

// drive lets mission devices drive between stops until the test ends.
func drive(t testing.TB, gateways []*gateway.Gateway) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i, g := range gateways {
		at := vehicle.Position{Latitude: 49.194 + float64(i%4)*0.004, Longitude: 16.606 + float64(i/4)*0.006, Altitude: 240}
		d := &driver{autonomy: vehicle.NewAutonomy(at), last: time.Now()}
		var stops []string
		for j := range 12 {
			stops = append(stops, fmt.Sprintf(`{"name":"stop %d","position":{"latitude":%f,"longitude":%f,"altitude":240}}`, j+1,
				49.196+float64((i*5+j*3)%7)*0.0022, 16.609+float64((i*3+j*5)%8)*0.0031))
		}
		d.Command([]byte(`{"action":"START","route":"round","stops":[` + strings.Join(stops, ",") + `]}`))
		wg.Go(func() { g.Drive(ctx, d, 500*time.Millisecond) })
	}
}
