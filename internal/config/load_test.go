package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"external-server/internal/config/document"
	"external-server/internal/fleet"
	"external-server/internal/module"
)

// defaultModule is what a library without further keys becomes.
func defaultModule(number int32, path, lib string, own ...Pair) Module {
	return Module{Number: number, KeyPath: path, LibPath: lib, Isolation: IsolationProcess, Config: own,
		Answer: AnswerQueued, PollTimeout: time.Second, SpoolMaxBytes: 64 << 20, MaxRestarts: 10, CallTimeout: time.Minute}
}

func pair(key, value string) Pair { return Pair{key, NewSecret(value)} }

// TestFormats reads one file of each format and compares all of its values.
func TestFormats(t *testing.T) {
	examples := readExamples(t)
	load := func(t *testing.T, name string) *Config {
		cfg, warnings := mustLoad(t, examples[name])
		if len(warnings) > 0 {
			t.Errorf("warnings:\n%s", lines(warnings))
		}
		return cfg
	}
	compare := func(t *testing.T, what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %#v\nwant %#v", what, got, want)
		}
	}
	console := Sink{Use: true, Level: slog.LevelInfo, Format: "text"}

	t.Run("A", func(t *testing.T) {
		cfg := load(t, "a.json")
		compare(t, "company", cfg.Company, "bring_auto")
		compare(t, "broker", cfg.Broker, Broker{Host: "127.0.0.1", Port: 1883})
		compare(t, "T_msg", cfg.MessageTimeout, 10*time.Second)
		compare(t, "T_sess", cfg.SessionTimeout, 30500*time.Millisecond)
		compare(t, "T_back", cfg.RetryDelay, 500*time.Millisecond)
		compare(t, "invalid command", cfg.SendInvalidCommand, false)
		own := []Pair{pair("api_key", "key"), pair("api_url", "http://localhost")}
		first := defaultModule(1000, "modules.1000", "./lib.so")
		first.Config = []Pair{}
		compare(t, "cars", cfg.Cars, []Car{{Name: "virtual_vehicle", Modules: []Module{first, defaultModule(2, "modules.2", "other.so", own...)}}})
		compare(t, "log", cfg.Logging, Logging{Console: console, File: Sink{Use: true, Level: slog.LevelInfo, Format: "text", Path: "./logs/", MaxBytes: 100000, Keep: 3}})
		compare(t, "limits", cfg.Limits, defaultLimits())
	})
	t.Run("B", func(t *testing.T) {
		cfg := load(t, "b.json")
		compare(t, "T_msg", cfg.MessageTimeout, 30*time.Second)
		compare(t, "T_back", cfg.RetryDelay, 7*time.Second)
		common := defaultModule(1000, "common_modules.1000", "lib.so", pair("n", "5"))
		specific := defaultModule(2, "cars.car_b.specific_modules.2", "other.so")
		specific.Config = []Pair{}
		compare(t, "cars", cfg.Cars, []Car{{Name: "car_a", Modules: []Module{common}}, {Name: "car_b", Modules: []Module{specific, common}}}) // CFG-13
		console := console
		console.Level = slog.LevelDebug
		compare(t, "log", cfg.Logging, Logging{Console: console, File: Sink{Use: true, Level: slog.LevelDebug, Format: "text", Path: "./logs/", MaxBytes: 10485760, Keep: 5}})
	})
	t.Run("C", func(t *testing.T) {
		cfg := load(t, "c.json")
		files := TLS{CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem"}
		compare(t, "broker", cfg.Broker, Broker{Host: "mosquitto", Port: 1883, Username: "name", Password: NewSecret("word"), Connections: 2, TLS: &files, files: files})
		compare(t, "file level", cfg.Logging.File.Level, LevelCritical)
		compare(t, "console level", cfg.Logging.Console.Level, slog.LevelDebug)
	})
	t.Run("D", func(t *testing.T) {
		cfg := load(t, "d.json")
		files := TLS{CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem"}
		compare(t, "broker", cfg.Broker, Broker{Host: "broker.example.org", Port: 8883, Username: "name", Password: NewSecret("word"), Connections: 4, TLS: &files, files: files})
		one := Module{Number: 1, KeyPath: "common_modules.1", Builtin: BuiltinMission, Config: []Pair{pair("api_url", "http://localhost")},
			Answer: AnswerQueued, PollTimeout: time.Second, SpoolDirectory: "logs", SpoolMaxBytes: 1000000, MaxRestarts: 10, CallTimeout: time.Minute}
		thousand := defaultModule(1000, "common_modules.1000", "lib.so")
		thousand.Config, thousand.Isolation, thousand.PollTimeout = []Pair{}, IsolationNone, 500*time.Millisecond
		seven := Module{Number: 7, KeyPath: "cars.*.specific_modules.7", Command: []string{"./run", "--fast"}, Config: []Pair{pair("flag", "1")},
			Answer: AnswerDelivered, PollTimeout: time.Second, SpoolMaxBytes: 64 << 20, MemoryLimit: 64 << 20, MaxRestarts: 3, CallTimeout: 5 * time.Second}
		compare(t, "cars", cfg.Cars, []Car{{Name: "car_a", Modules: []Module{one, thousand}, Labels: []Label{{"depot", "Brno střed"}, {"model", "shuttle-2"}}}})
		compare(t, "any car", cfg.AnyCar, &Car{Name: AnyCarName, Modules: []Module{seven, one, thousand}})
		compare(t, "log", cfg.Logging, Logging{
			Console: Sink{Use: true, Level: slog.LevelInfo, Format: "json"},
			File:    Sink{Use: true, Level: slog.LevelWarn, Format: "text", Path: "logs", Keep: 9}})
		compare(t, "embedded broker", cfg.EmbeddedBroker, &EmbeddedBroker{Listen: "127.0.0.1:0",
			TLS: &ServerTLS{"cert.pem", "key.pem", "ca.pem"}, Users: []User{{"a", NewSecret("b"), ""}}})
		compare(t, "limits", cfg.Limits, Limits{StatusesAhead: 10, ModuleQueue: 20, Stop: 3 * time.Second, Payload: 1000, MessagesPerSec: 5,
			MessageBurst: 6, IdleCar: 7 * time.Second, AnyCars: 8, AdmissionTimeout: 900 * time.Millisecond})
		compare(t, "HTTP API", cfg.HTTPAPI, &HTTPAPI{Listen: ":8080", TLS: &ServerTLS{CertFile: "cert.pem", KeyFile: "key.pem"},
			Store: NewSecret("postgres://u:p@db/fleet"), KeysFile: "keys", Retention: time.Minute, MaxCars: 500, WaitTimeout: 700 * time.Millisecond})
		compare(t, "admin", cfg.Admin, &Admin{Listen: "0.0.0.0:8090", TLS: &ServerTLS{CertFile: "cert.pem", KeyFile: "key.pem"},
			Tokens: []Token{{Name: "n", Role: RoleOperate, Token: NewSecret("t")}, {Name: "f", Role: RoleRead, Token: NewSecret("from-file"), TokenFile: "token"}}, PerCarMetrics: true,
			MapTiles: "https://tiles.example.org:8443/{z}/{x}/{y}.png?key=k", MapAttribution: "© the owners", MapMaxZoom: 14})
		compare(t, "tracing", cfg.Tracing, &Tracing{"https://collector:4318/v1", 0.5})
		compare(t, "presence", cfg.Presence, true)
	})
	t.Run("default file", func(t *testing.T) {
		cfg := load(t, "config.json")
		compare(t, "broker", cfg.Broker, Broker{})
		compare(t, "embedded broker", cfg.EmbeddedBroker, &EmbeddedBroker{Listen: "127.0.0.1:1883"})
	})
}

// TestDefaults loads files with only the required keys.
func TestDefaults(t *testing.T) {
	workdir(t)
	for _, text := range []string{minimalA, minimalD} {
		cfg, warnings := mustLoad(t, text)
		if len(warnings) > 0 {
			t.Errorf("warnings:\n%s", lines(warnings))
		}
		if cfg.MessageTimeout != 5*time.Second || cfg.SessionTimeout != 30*time.Second || cfg.RetryDelay != time.Second || cfg.SendInvalidCommand {
			t.Errorf("times: %+v", cfg)
		}
		if cfg.Broker.Port != 1883 || cfg.Broker.TLS != nil {
			t.Errorf("broker: %+v", cfg.Broker)
		}
		if !cfg.Logging.Console.Use || cfg.Logging.Console.Level != slog.LevelInfo || cfg.Logging.File.Use {
			t.Errorf("log: %+v", cfg.Logging)
		}
		if cfg.EmbeddedBroker != nil || cfg.HTTPAPI != nil || cfg.Admin != nil || cfg.Tracing != nil || cfg.Presence || cfg.AnyCar != nil {
			t.Errorf("something is on: %+v", cfg)
		}
	}
	cfg, _ := mustLoad(t, with(minimalD, `"http_api": true, "admin": {}, "tracing": {}, "embedded_broker": {}`))
	if got := fmt.Sprint(cfg.HTTPAPI.Listen, cfg.HTTPAPI.Store.Reveal(), cfg.HTTPAPI.Retention, cfg.HTTPAPI.WaitTimeout, cfg.Admin.Listen, cfg.Tracing.SampleRatio, cfg.EmbeddedBroker.Listen); got != "127.0.0.1:8080sqlite:external_server.db1h0m0s 5s127.0.0.1:80900.01127.0.0.1:1883" {
		t.Error(got)
	}
	cfg, _ = mustLoad(t, with(minimalD, `"http_api": false, "admin": {"listen": "", "tokens": []}, "tracing": null, "embedded_broker": null`))
	if cfg.HTTPAPI != nil || cfg.Admin != nil || cfg.Tracing != nil || cfg.EmbeddedBroker != nil {
		t.Errorf("something is on: %+v", cfg)
	}
}

// TestWarnings shows the exact lines.
func TestWarnings(t *testing.T) {
	workdir(t)
	for _, c := range []struct{ name, text, want string }{
		{"unknown keys", "{\"company_name\": \"c\", \"external_communication\": {\"server_address\": \"h\", \"sever_port\": 5},\n\"common_modules\": {\"5\": {\"lib_path\": \"lib.so\", \"timeout\": 5, \"config\": {\"anything\": \"x\"}}},\n\"cars\": {\"v\": {\"specific_module\": {}}},\n\"logging\": {\"consle\": {}}, \"Send-Invalid-Command\": true, \"zzzzzz\": 1}",
			"config.json:1:73: external_communication.sever_port: unknown key, ignored; did you mean server_port?\n" +
				"config.json:2:48: common_modules.5.timeout: unknown key, ignored; did you mean timeout_ms?\n" +
				"config.json:3:16: cars.v.specific_module: unknown key, ignored; did you mean specific_modules?\n" +
				"config.json:4:13: logging.consle: unknown key, ignored; did you mean console?\n" +
				"config.json:4:28: Send-Invalid-Command: unknown key, ignored; did you mean send_invalid_command?\n" +
				"config.json:4:58: zzzzzz: unknown key, ignored"},
		{"two notations", "{\"company_name\": \"c\", \"external_communication\": {\"server_address\": \"h\"},\n\"mqtt_address\": \"other host\",\n\"mqtt_port\": 0,\n\"common_modules\": {\"5\": {\"lib_path\": \"lib.so\"}}, \"cars\": {\"v\": {}},\n\"car_name\": \"w\",\n\"modules\": [],\n\"log_files_directory\": \"none\",\n\"logging\": {}}",
			"config.json:2:1: mqtt_address: ignored, because external_communication is present and wins (CFG-1)\n" +
				"config.json:3:1: mqtt_port: ignored, because external_communication is present and wins (CFG-1)\n" +
				"config.json:5:1: car_name: ignored, because cars is present; it belongs to the format with a single car\n" +
				"config.json:6:1: modules: ignored, because cars is present; it belongs to the format with a single car\n" +
				"config.json:7:1: log_files_directory: ignored, because the logging block is present and wins"},
		{"short times", with(minimalA, `"timeout": 2, "mqtt_timeout": 10`),
			"config.json:1:114: timeout: below 3 s gateways on slow networks never finish the connect sequence (GW-57)\n" +
				"config.json:1:133: mqtt_timeout: below 30 s sessions of gateways that merely stall are ended (GW-57)"},
		{"keys without effect", `{"company_name": "c", "car_name": "v", "mqtt_address": "h", "modules": {"0": {"lib_path": "lib.so", "spool_directory": "none"}, "2": {"builtin": "io", "memory_limit_mb": 5}}}`,
			"config.json:1:73: modules.0: module number 0 is reserved (VOC-7)\n" +
				"config.json:1:101: modules.0.spool_directory: has no effect on a library or command\n" +
				"config.json:1:152: modules.2.memory_limit_mb: has no effect on a built-in module"},
		{"open broker", with(minimalD, `"embedded_broker": {"listen": ":1883", "insecure": true}`),
			"config.json:1:161: embedded_broker: the broker listens beyond this machine and anyone who reaches it could be any car; add users, or tls with client_ca_file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, warnings := mustLoad(t, c.text)
			if got := lines(warnings); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestManyProblems keeps the output of a hopeless file bounded.
func TestManyProblems(t *testing.T) {
	workdir(t)
	var b strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&b, `,"Car %d": {"module": 1}`, i)
	}
	write(t, "config.json", strings.Replace(minimalD, `{"v": {}`, `{"v": {}`+b.String(), 1))
	_, warnings, err := Load("config.json", nil)
	for what, text := range map[string]string{"errors": err.Error(), "warnings": lines(warnings)} {
		got := strings.Split(text, "\n")
		if len(got) != 1001 || !strings.HasSuffix(got[1000], "500 further "+what+" are not listed") {
			t.Errorf("%d lines, the last one: %s", len(got), got[len(got)-1])
		}
	}
}

// TestUnreadable: CLI-9 and its neighbours, one line each.
func TestUnreadable(t *testing.T) {
	dir := workdir(t)
	write(t, "large.json", "")
	if err := os.Truncate("large.json", document.MaxBytes+1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{"large.json", "large.json: the file is larger than 64 MiB; no configuration needs that"},
		{"none.json", "none.json: the configuration file was not found: " + filepath.Join(dir, "none.json") + "; give its path with -c or as the argument"},
		{"logs", "logs: " + filepath.Join(dir, "logs") + " is not a regular file; expected a JSON file"},
		{"lib.so/x", "lib.so/x: the configuration cannot be read: \"" + filepath.Join(dir, "lib.so/x") + "\": not a directory"},
	} {
		if _, _, err := Load(c.path, nil); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestLeniency(t *testing.T) {
	workdir(t)
	for _, c := range []struct {
		value string
		want  bool
	}{{"true", true}, {`"yes"`, true}, {`"TRUE"`, true}, {"1", true}, {`"1"`, true}, {`"on"`, true},
		{"false", false}, {`"No"`, false}, {`"false"`, false}, {"0", false}, {`"off"`, false}} {
		if cfg, _ := mustLoad(t, with(minimalA, `"send_invalid_command": `+c.value)); cfg.SendInvalidCommand != c.want {
			t.Errorf("%s is %v", c.value, cfg.SendInvalidCommand)
		}
	}
	for value, want := range map[string]int{"1883": 1883, `"1883"`: 1883, "1883.0": 1883, `" 42 "`: 42, "1e3": 1000} {
		if cfg, _ := mustLoad(t, with(minimalA, `"mqtt_port": `+value)); cfg.Broker.Port != want {
			t.Errorf("%s is %d", value, cfg.Broker.Port)
		}
	}
	if cfg, _ := mustLoad(t, with(minimalA, `"sleep_duration_after_connection_refused": 0`)); cfg.RetryDelay != 100*time.Millisecond {
		t.Errorf("no pause became %v", cfg.RetryDelay)
	}
}

func TestModuleConfigValues(t *testing.T) { // MOD-9
	workdir(t)
	cfg, _ := mustLoad(t, strings.Replace(minimalA, `"lib.so"`,
		`"lib.so", "config": {"z": "text \u00e4\u0000", "true": true, "false": false, "int": -5, "zero": -0, "float": 2.0, "exp": 1e3, "minus zero": -0.0, "big": 123456789012345678901234567890}`, 1))
	want := []Pair{pair("z", "text ä\x00"), pair("true", "1"), pair("false", "0"), pair("int", "-5"), pair("zero", "0"),
		pair("float", "2"), pair("exp", "1000"), pair("minus zero", "0"), pair("big", "123456789012345678901234567890")}
	if got := cfg.Cars[0].Modules[0].Config; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestSpec(t *testing.T) { // MOD-8
	car := fleet.CarID{Company: "acme", Car: "car1"}
	for _, c := range []struct {
		name string
		own  []Pair
		want []module.Pair
	}{
		{"nothing own", nil, []module.Pair{{Key: "company_name", Value: "acme"}, {Key: "car_name", Value: "car1"}}},
		{"file order", []Pair{pair("z", "1"), pair("a", "2")},
			[]module.Pair{{Key: "company_name", Value: "acme"}, {Key: "car_name", Value: "car1"}, {Key: "z", Value: "1"}, {Key: "a", Value: "2"}}},
		{"replaced in place", []Pair{pair("z", "1"), pair("car_name", "other"), pair("a", "2"), pair("company_name", "")},
			[]module.Pair{{Key: "company_name", Value: ""}, {Key: "car_name", Value: "other"}, {Key: "z", Value: "1"}, {Key: "a", Value: "2"}}},
	} {
		got := Module{Config: c.own, PollTimeout: time.Minute}.Spec(car)
		if !reflect.DeepEqual(got.Config, c.want) || got.Car != car || got.PollTimeout != time.Minute {
			t.Errorf("%s: %q", c.name, got.Config)
		}
	}
}

func TestCredentials(t *testing.T) {
	workdir(t)
	env := func(pairs ...string) func(string) (string, bool) {
		return func(key string) (string, bool) {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == key {
					return pairs[i+1], true
				}
			}
			return "", false
		}
	}
	embedded := `{"company_name": "c", "car_name": "v", "modules": {"5": {"lib_path": "lib.so"}}, "embedded_broker": {"users": [{"name": "first", "password": "1"}, {"name": "second", "password": "2"}]}}`
	for _, c := range []struct {
		name, text     string
		env            func(string) (string, bool)
		user, password string
	}{
		{"none", minimalA, env(), "", ""},
		{"file", with(minimalA, `"mqtt_username": "u", "mqtt_password": "p"`), env(), "u", "p"},
		{"environment replaces", with(minimalA, `"mqtt_username": "u", "mqtt_password": "p"`), env(EnvUsername, "e", EnvPassword, "s"), "e", "s"},
		{"environment adds", minimalD, env(EnvUsername, "e", EnvPassword, "s"), "e", "s"},
		{"password by environment", with(minimalA, `"mqtt_username": "u"`), env(EnvPassword, "s"), "u", "s"},
		{"first user of the embedded broker", embedded, env(), "first", "1"},
		{"users of cars are not the server's", strings.Replace(embedded, `"password": "1"`, `"password": "1", "car": "v"`, 1), env(), "second", "2"},
		{"another user of the embedded broker", with(embedded, `"mqtt_username": "second", "mqtt_password": "2"`), env(), "second", "2"},
		{"embedded broker by its address", with(embedded, `"mqtt_address": "localhost"`), env(), "first", "1"},
		{"external broker beside the embedded one", with(embedded, `"mqtt_address": "h"`), env(), "", ""},
		{"another broker on this machine", with(embedded, `"mqtt_address": "127.0.0.1", "mqtt_port": 1884`), env(), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, "config.json", c.text)
			cfg, _, err := Load("config.json", c.env)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Broker.Username != c.user || cfg.Broker.Password.Reveal() != c.password {
				t.Errorf("%q, %q", cfg.Broker.Username, cfg.Broker.Password.Reveal())
			}
		})
	}
	write(t, "config.json", minimalA)
	if _, _, err := Load("config.json", env(EnvPassword, "planted")); err == nil || strings.Contains(err.Error(), "planted") {
		t.Errorf("a password without user name: %v", err)
	}
}

func TestLogOfA(t *testing.T) {
	workdir(t)
	for _, c := range []struct {
		keys string
		want Sink
	}{
		{`"presence": false`, Sink{Level: slog.LevelInfo, Format: "text", MaxBytes: 10485760, Keep: 5}},
		{`"log_files_directory": "", "log_files_to_keep": 2, "log_file_max_size_bytes": 0`, Sink{Use: true, Level: slog.LevelInfo, Format: "text", Keep: 2}},
		{`"log_files_directory": "none", "log_files_to_keep": 0, "log_file_max_size_bytes": 7`, Sink{Level: slog.LevelInfo, Format: "text", Path: "none", MaxBytes: 7}},
	} {
		if cfg, _ := mustLoad(t, with(minimalA, c.keys)); cfg.Logging.File != c.want {
			t.Errorf("%s: %+v", c.keys, cfg.Logging.File)
		}
	}
}
