package deploytest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// grace is how long an engine waits after the stop signal: stop_grace_period of
// the compose files, docker's own default.
const grace = 10 * time.Second

// What the Dockerfile says, done and run: the build's commands in plain folders,
// the main process as the image's user, its health check, its stop.
func TestImage(t *testing.T) {
	t.Parallel()
	testneed.Tool(t, "make", "make")
	testneed.Tool(t, "cmake", "cmake")
	args, stages := parseDockerfile(t, filepath.Join(servertest.Root(), "Dockerfile"))
	last := stages[len(stages)-1]
	goImage(t, args["GO_IMAGE"])
	entry, command := last.one(t, "ENTRYPOINT").exec(t), last.one(t, "CMD").exec(t)
	check := last.one(t, "HEALTHCHECK")
	check.text = strings.TrimPrefix(check.text, "CMD ")
	if got := last.one(t, "USER").text; got != fmt.Sprintf("%d:%d", user, user) {
		t.Errorf("USER %s, expected %d:%d", got, user, user)
	}
	if got := last.one(t, "STOPSIGNAL").text; got != "SIGTERM" {
		t.Errorf("STOPSIGNAL %s", got)
	}
	b, root := build(t, stages)
	for _, unwanted := range []string{".git", "bin", "docs", "README.md"} {
		if _, err := os.Lstat(filepath.Join(b.context, unwanted)); err == nil {
			t.Errorf("%s is sent to the engine", unwanted)
		}
	}
	for _, volume := range last.one(t, "VOLUME").exec(t) {
		info, err := os.Stat(filepath.Join(root, volume))
		if err != nil {
			t.Fatalf("VOLUME %s: %v", volume, err)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; os.Geteuid() == 0 && owner != user {
			t.Errorf("VOLUME %s belongs to %d", volume, owner)
		}
	}
	c := newContainer(t, b, last)

	t.Run("version", func(t *testing.T) {
		if out, all, code := c.run(entry[0], "version"); code != 0 || !strings.HasPrefix(out, "external-server dev ") {
			t.Errorf("exit code %d:\n%s", code, all)
		}
	})
	t.Run("modules", func(t *testing.T) {
		// The libraries of the module stage are there and keep the rules.
		_, all, code := c.run(entry[0], "module", "check", "/opt/modules/libexample.so")
		if code != 0 {
			t.Errorf("exit code %d:\n%s", code, all)
		}
	})
	t.Run("default command", func(t *testing.T) { defaultCommand(t, c, entry, command, check.exec(t)) })
	t.Run("compose.full.yml", func(t *testing.T) { fullCompose(t, c, entry) })
}

// goImage compares the image's Go with the one go.mod asks for.
func goImage(t *testing.T, image string) {
	t.Helper()
	mod, err := os.ReadFile(filepath.Join(servertest.Root(), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	if !strings.HasPrefix(image, "golang:"+string(version[1])+"-") {
		t.Errorf("GO_IMAGE is %s, go.mod asks for Go %s", image, version[1])
	}
}

// defaultCommand runs the image without any argument: modules 1 and 2, an HTTP
// API that is not there yet, and a broker.
func defaultCommand(t *testing.T, c *container, entry, command, check []string) {
	c.t = t
	broker := brokertest.Start(t, brokertest.Options{File: filepath.Join(servertest.Root(), "deploy/mosquitto/mosquitto.conf")})
	nobody := closedPort(t)
	file := command[len(command)-1]
	c.rewrite(file, func(config map[string]any) {
		useBroker(t, config, broker)
		config["admin"].(map[string]any)["listen"] = fmt.Sprintf("127.0.0.1:%d", closedPort(t))
		for _, module := range config["common_modules"].(map[string]any) {
			settings := module.(map[string]any)["config"].(map[string]any)
			if settings["api_url"] != "http://http-api:8080/v2/protocol" {
				t.Errorf("api_url is %v", settings["api_url"])
			}
			settings["api_url"] = fmt.Sprintf("http://127.0.0.1:%d/v2/protocol", nobody)
		}
	})
	out, all, code := c.run(entry[0], "check", "-c", file)
	if code != 0 || !strings.Contains(out, "all ok") {
		t.Fatalf("check of the default configuration: exit code %d\n%s", code, all)
	}
	if strings.Contains(all, "warning:") {
		t.Errorf("the default configuration causes warnings:\n%s", all)
	}
	for _, module := range []string{"built-in mission", "built-in io"} {
		if !strings.Contains(out, module) {
			t.Errorf("the image does not come with %s:\n%s", module, out)
		}
	}
	if _, all, code := c.run(check...); code != 1 || !strings.Contains(all, "is it running") {
		t.Errorf("health check before the start: exit code %d\n%s", code, all)
	}
	server := c.start(append(append([]string(nil), entry...), command...)...)
	server.waitLog("connected to the broker")
	if out, all, code := c.run(check...); code != 0 || out != "alive\n" {
		t.Errorf("health check: exit code %d\n%s", code, all)
	}
	answered := drive(t, broker, "car1")
	testwait.Until(t, "the car's status is answered", func() bool { return answered.Load() >= 1 })
	// What the HTTP API has not had yet is in the state volume, the log in the
	// other one.
	for _, path := range []string{"/var/lib/external-server/bringauto/car1/module-1", "/var/log/external-server/external_server.log"} {
		info, err := os.Stat(c.path(path))
		if err != nil {
			t.Error(err)
		} else if owner := info.Sys().(*syscall.Stat_t).Uid; os.Geteuid() == 0 && owner != user {
			t.Errorf("%s belongs to %d", path, owner)
		}
	}
	if code := server.stop(grace); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	if _, all, code := c.run(check...); code != 1 {
		t.Errorf("health check after the stop: exit code %d\n%s", code, all)
	}
}

// fullCompose runs the service of compose.full.yml: a status of a car comes out
// of the embedded HTTP API, with a key made as the file says.
func fullCompose(t *testing.T, c *container, entry []string) {
	c.t = t
	service := readCompose(t, "compose.full.yml").Services["external-server"]
	broker := brokertest.Start(t, brokertest.Options{File: filepath.Join(servertest.Root(), "deploy/mosquitto/mosquitto.conf")})
	file := service.Command[len(service.Command)-1]
	api := fmt.Sprintf("127.0.0.1:%d", closedPort(t))
	c.rewrite(file, func(config map[string]any) {
		useBroker(t, config, broker)
		config["admin"].(map[string]any)["listen"] = fmt.Sprintf("127.0.0.1:%d", closedPort(t))
		config["http_api"].(map[string]any)["listen"] = api
	})
	if _, all, code := c.run(entry[0], "check", "-c", file); code != 0 || strings.Contains(all, "warning:") {
		t.Errorf("check: exit code %d\n%s", code, all)
	}
	server := c.start(append(append([]string(nil), entry...), service.Command...)...)
	server.waitLog("connected to the broker")
	var body string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last answer: %s", body)
		}
	})
	testwait.Until(t, "the health check says that everything is ready", func() bool {
		_, all, code := c.run(append(service.Healthcheck.Test[1:], "--ready")...)
		body = all
		return code == 0
	})
	key, all, code := c.run(entry[0], "http-api", "key", "add", "test", "-c", file)
	if code != 0 {
		t.Fatalf("http-api key add: exit code %d\n%s", code, all)
	}
	drive(t, broker, "car1")
	testwait.Until(t, "the HTTP API has the car's status", func() bool {
		body = get(t, "http://"+api+"/v2/protocol/status/bringauto/car1?api_key="+url.QueryEscape(strings.TrimSpace(key)))
		return strings.Contains(body, `"IN_STOP"`)
	})
	if code := server.stop(grace); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func useBroker(t *testing.T, config map[string]any, broker *brokertest.Mosquitto) {
	t.Helper()
	link := config["external_communication"].(map[string]any)
	if link["server_address"] != "mosquitto" || link["server_port"] != 1883.0 {
		t.Errorf("the broker is %v:%v, expected the service mosquitto", link["server_address"], link["server_port"])
	}
	address, err := net.ResolveTCPAddr("tcp", broker.Address())
	if err != nil {
		t.Fatal(err)
	}
	link["server_address"], link["server_port"] = address.IP.String(), address.Port
}

// drive runs a car that reports its mission device; it returns the number of
// answered statuses.
func drive(t *testing.T, broker *brokertest.Mosquitto, car string) *atomic.Int64 {
	t.Helper()
	answered := new(atomic.Int64)
	g, err := gateway.Start(gateway.Settings{
		Car:    fleet.CarID{Company: "bringauto", Car: car},
		Broker: gateway.Broker{Address: broker.Address()},
		Observe: func(e gateway.Effect) {
			if e.Kind == gateway.EffectAnswered {
				answered.Add(1)
			}
		},
		Core: gateway.Options{Timing: gateway.Timing{
			RetryPause: 300 * time.Millisecond, MessageTimeout: 30 * time.Second, LinkTimeout: 10 * time.Second,
			StatusTimeout: 30 * time.Second, QueuePoll: 50 * time.Millisecond, LeaveStall: 50 * time.Millisecond,
		}, Steady: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	status, err := json.Marshal(map[string]any{
		"state":     "IN_STOP",
		"telemetry": map[string]any{"speed": 0, "fuel": 1, "position": map[string]any{"latitude": 49.2, "longitude": 16.6, "altitude": 250}},
		"nextStop":  nil,
	})
	if err != nil {
		t.Fatal(err)
	}
	device := fleet.Device{Module: 1, Type: 1, Role: "driving", Name: "autonomy"}
	g.Status(device, status, time.Time{})
	return answered
}

func get(t *testing.T, address string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// closedPort returns a loopback port without a listener.
func closedPort(t *testing.T) int {
	t.Helper()
	_, port, err := net.SplitHostPort(brokertest.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
