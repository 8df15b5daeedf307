package config

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestErrors shows the exact lines a person sees. Cases marked shape are also
// refused by the JSON schema.
func TestErrors(t *testing.T) {
	workdir(t)
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	validator := compiled(t)
	for _, c := range []struct {
		name  string
		text  string
		shape bool
		want  string // lines; DIR is the working directory
	}{
		// not JSON
		{"empty file", " \n", false, `config.json:1:1: the file is empty; expected a JSON object`},
		{"syntax", "{\n  \"a\": 1\n  \"b\": 2\n}", false, `config.json:3:3: invalid JSON: invalid character '"' after object key:value pair; a comma is missing before it`},
		{"comment", "{\n  // why\n  \"a\": 1}", false, `config.json:2:3: invalid JSON: invalid character '/' looking for beginning of object key string; JSON has no comments, remove it`},
		{"comma before a bracket", "{\"a\": [1,\n]}", false, `config.json:2:1: invalid JSON: invalid character ']' looking for beginning of value; remove the comma before ]`},
		{"comma before a brace", "{\"a\": 1, }", false, `config.json:1:10: invalid JSON: invalid character '}' looking for beginning of object key string; remove the comma before }`},
		{"cut off", "{\n  \"a\": [1,\n", false, `config.json:3:1: invalid JSON: unexpected end of JSON input; a closing bracket, brace or quote is missing`},
		{"trailing garbage", "{}\n}", false, `config.json:2:1: invalid JSON: invalid character '}' after top-level value`},
		{"byte order mark", "\xef\xbb\xbf{}", false, `config.json:1:1: the file begins with a byte order mark; expected plain UTF-8, save it without BOM`},
		{"UTF-16", "\xff\xfe{\x00}\x00", false, `config.json:1:1: the file is UTF-16; expected UTF-8`},
		{"invalid UTF-8", "{\"a\":\n \"ä\xff\"}", true, `config.json:2:4: invalid UTF-8, byte 0xff; expected a file in UTF-8`},
		{"deep", `{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, true, `config.json:1:69: nested deeper than 64 levels; no configuration needs that`},
		{"very deep", strings.Repeat("[", 20000), false, `config.json:1:10001: nested deeper than 64 levels; no configuration needs that`},
		{"not an object", `["company_name"]`, true, `config.json:1:1: expected an object, got an array`},
		{"duplicate keys", "{\"company_name\": \"c\", \"car_name\": \"v\", \"mqtt_address\": \"h\", \"modules\": {\"5\": {\"lib_path\": \"lib.so\",\n\"lib_path\": \"other.so\"}},\n\"car_name\": \"w\"}", false,
			"config.json:2:1: modules.5.lib_path: the key appears twice in one object; remove one\n" +
				"config.json:3:1: car_name: the key appears twice in one object; remove one"},
		{"duplicate key among many", `{"company_name": "c", "mqtt_address": "h", "timeout": 5, "presence": false, "limits": {}, "tracing": false, "admin": false, "http_api": false, "logging": {}, "common_modules": {"5": {"lib_path": "lib.so"}}, "cars": {"v": {}}, "limits": {}}`, false,
			`config.json:1:227: limits: the key appears twice in one object; remove one`},

		// missing keys
		{"nothing", `{}`, true,
			"config.json:1:1: company_name: required, but missing; expected the name of the company\n" +
				"config.json:1:1: mqtt_address: required, but missing; expected the host name of the MQTT broker, or an external_communication or embedded_broker block\n" +
				`config.json:1:1: cars: required, but missing; at least one car is needed (CFG-9); expected an object with the names of the cars as keys, such as {"cars": {"car1": {}}}`},
		{"A without the rest", `{"car_name": "v", "modules": {}}`, true,
			"config.json:1:1: company_name: required, but missing; expected the name of the company\n" +
				"config.json:1:1: mqtt_address: required, but missing; expected the host name of the MQTT broker, or an external_communication or embedded_broker block\n" +
				`config.json:1:30: modules: at least one module is needed (CFG-5); expected such as {"1000": {"lib_path": "…"}}`},
		{"D without address", `{"company_name": "c", "external_communication": {}, "common_modules": {"5": {"lib_path": "lib.so"}}, "cars": {"v": {}}}`, true,
			`config.json:1:49: external_communication.server_address: required, but missing; expected the host name of the MQTT broker, or an embedded_broker block`},
		{"module without kind", `{"company_name": "c", "car_name": "v", "mqtt_address": "h", "modules": {"5": {}}}`, true,
			`config.json:1:78: modules.5.lib_path: required, but missing; expected the path of the module library (or builtin, or command)`},

		// names, broker
		{"empty company", strings.Replace(minimalA, `"c"`, `""`, 1), true,
			`config.json:1:18: company_name: must not be empty: it is part of every topic, and no gateway has an empty one; expected lower-case letters, digits and _`},
		{"bad names", `{"company_name": "Ac me", "car_name": 7, "mqtt_address": "h", "modules": {"5": {"lib_path": "lib.so"}}}`, true,
			"config.json:1:18: company_name: expected lower-case letters, digits and _ only (VOC-1)\n" +
				`config.json:1:39: car_name: expected a string, got a number`},
		{"bad car key", strings.Replace(minimalD, `"v"`, `"Car 1"`, 1), true,
			`config.json:1:132: cars."Car 1": expected lower-case letters, digits and _ only (VOC-1), or "*" for every car of the company`},
		{"address with port", strings.Replace(minimalA, `"h"`, `"http://broker:1883"`, 1), false,
			`config.json:1:56: mqtt_address: expected a host name or IP address without port; the port has its own key`},
		{"address with path", strings.Replace(minimalA, `"h"`, `"broker/x"`, 1), false,
			`config.json:1:56: mqtt_address: expected a host name or IP address only, without path, query and user name`},
		{"address of blanks", strings.Replace(minimalA, `"h"`, `"my broker"`, 1), false,
			`config.json:1:56: mqtt_address: expected a host name (letters, digits, -, _ and dots), an IPv4 or an IPv6 address`},
		{"address only scheme", strings.Replace(minimalA, `"h"`, `"https://"`, 1), false,
			`config.json:1:56: mqtt_address: must not be empty; expected the host name or IP address of the MQTT broker`},
		{"port 0", with(minimalA, `"mqtt_port": 0`), true,
			`config.json:1:116: mqtt_port: nothing can be reached on port 0; expected the port of the broker, usually 1883`},
		{"port too large", with(minimalA, `"mqtt_port": 70000`), true, `config.json:1:116: mqtt_port: expected a whole number from 1 to 65535, got 70000`},
		{"port fraction", with(minimalA, `"mqtt_port": 1883.5`), true, `config.json:1:116: mqtt_port: expected a whole number from 1 to 65535, got 1883.5`},
		{"port text", with(minimalA, `"mqtt_port": "0x10"`), true, `config.json:1:116: mqtt_port: expected a whole number from 1 to 65535, got a string`},
		{"protocol", strings.Replace(minimalD, `{"server`, `{"protocol": "mqtt", "server`, 1), true,
			`config.json:1:62: external_communication.protocol: expected "MQTT"; there is no other protocol`},
		{"name too long", strings.Replace(minimalD, `"v"`, `"`+strings.Repeat("v", 65507)+`"`, 1), false,
			`config.json:1:132: cars."` + strings.Repeat("v", 200) + `…": the name is too long: the topics of a car hold the names of company and car and have at most 65535 bytes`},
		{"company too long", strings.Replace(minimalA, `"c"`, `"`+strings.Repeat("c", 65508)+`"`, 1), false,
			`config.json:1:18: company_name: the name is too long: the topics of a car hold the names of company and car and have at most 65535 bytes`},
		{"one address for two", with(minimalD, `"embedded_broker": {"listen": "127.0.0.1:8080"}, "http_api": {"listen": "localhost:8080"}, "admin": {"listen": "0.0.0.0:8080", "insecure": true}`), false,
			"config.json:1:214: http_api.listen: embedded_broker.listen listens on the same address; each needs a port of its own\n" +
				`config.json:1:253: admin.listen: embedded_broker.listen listens on the same address; each needs a port of its own`},
		{"database in no folder", with(minimalD, `"http_api": {"store": "sqlite:/no/dir/x.db"}`), false,
			`config.json:1:164: http_api.store: the folder of the database is not an existing directory; create it first or correct the path`},
		{"one token with two roles", with(minimalD, `"admin": {"tokens": [{"name": "a", "token": "planted"}, {"name": "b", "role": "operate", "token": "planted"}]}`), false,
			`config.json:1:240: admin.tokens[1].token: the same token as an earlier one with another role; expected a token of its own for each role`},
		{"password alone", with(minimalA, `"mqtt_password": "planted"`), false,
			`config.json:1:103: mqtt_password: a password without user name; expected mqtt_username (or EXTERNAL_SERVER_MQTT_USERNAME in the environment) too`},
		{"certificate without key", with(minimalA, `"mqtt_cert_file": "cert.pem"`), false,
			`config.json:1:103: mqtt_cert_file: a certificate without private key; expected mqtt_key_file too`},
		{"CA file missing", with(minimalA, `"mqtt_ca_certs_file": "nothing.pem"`), false,
			`config.json:1:125: mqtt_ca_certs_file: "nothing.pem" does not exist (in DIR); expected a readable PEM file`},
		{"not a user of the embedded broker", `{"company_name": "c", "car_name": "v", "modules": {"5": {"lib_path": "lib.so"}}, "mqtt_username": "x", "embedded_broker": {"users": [{"name": "y", "password": "planted"}]}}`, false,
			`config.json:1:82: mqtt_username: no user of embedded_broker without car has this name and password; leave it out to use the first one`},
		{"server restricted to a car", `{"company_name": "c", "car_name": "v", "modules": {"5": {"lib_path": "lib.so"}}, "mqtt_username": "y", "mqtt_password": "planted", "embedded_broker": {"users": [{"name": "y", "password": "planted", "car": "v"}]}}`, false,
			`config.json:1:82: mqtt_username: no user of embedded_broker without car has this name and password; leave it out to use the first one`},
		{"all users restricted to a car", `{"company_name": "c", "car_name": "v", "modules": {"5": {"lib_path": "lib.so"}}, "embedded_broker": {"users": [{"name": "y", "password": "planted", "car": "v"}]}}`, false,
			`config.json:1:111: embedded_broker.users: every user is restricted to a car; add one without car, with which the server itself logs in`},
		{"user of a car with a strange name", `{"company_name": "c", "car_name": "v", "modules": {"5": {"lib_path": "lib.so"}}, "embedded_broker": {"users": [{"name": "x", "password": "planted"}, {"name": "y", "password": "planted", "car": "v/#"}]}}`, true,
			`config.json:1:194: embedded_broker.users[1].car: expected lower-case letters, digits and _ only (VOC-1)`},

		// times and switches
		{"timeouts of 0", with(minimalA, `"timeout": 0, "mqtt_timeout": 0`), true,
			"config.json:1:114: timeout: 0 cannot work; expected 0.001 seconds or more\n" +
				`config.json:1:133: mqtt_timeout: 0 cannot work; expected 0.001 seconds or more`},
		{"negative times", with(minimalA, `"timeout": -1, "sleep_duration_after_connection_refused": "-2"`), true,
			"config.json:1:114: timeout: expected a number of seconds, 0.001 or more and at most 1000000000, got -1\n" +
				`config.json:1:161: sleep_duration_after_connection_refused: expected a number of seconds, 0 or more and at most 1000000000, got a string`},
		{"endless time", with(minimalA, `"timeout": "inf"`), true, `config.json:1:114: timeout: expected a number of seconds, 0.001 or more and at most 1000000000, got a string`},
		{"switch", with(minimalA, `"send_invalid_command": "maybe", "presence": null`), true,
			"config.json:1:127: send_invalid_command: expected true or false (or \"yes\", \"no\", 1, 0)\n" +
				`config.json:1:148: presence: expected true or false, got null`},

		// cars and modules
		{"no cars", `{"company_name": "c", "mqtt_address": "h", "common_modules": {}, "cars": {}}`, true,
			`config.json:1:74: cars: at least one car is needed (CFG-9); expected an object with the names of the cars as keys, such as {"cars": {"car1": {}}}`},
		{"cars null", `{"company_name": "c", "mqtt_address": "h", "common_modules": {}, "cars": null}`, true,
			`config.json:1:74: cars: at least one car is needed (CFG-9); expected an object with the names of the cars as keys, such as {"cars": {"car1": {}}}`},
		{"cars as list", strings.Replace(minimalD, `{"v": {}}`, `["v"]`, 1), true, `config.json:1:131: cars: expected an object with the names of the cars as keys, got an array`},
		{"car null", strings.Replace(minimalD, `{"v": {}}`, `{"v": null}`, 1), true, `config.json:1:137: cars.v: expected an object, got null`},
		{"car without module", `{"company_name": "c", "mqtt_address": "h", "cars": {"v": {}, "w": {"specific_modules": {"1": {"lib_path": "lib.so"}}}}}`, true,
			`config.json:1:53: cars.v: every car needs at least one module, here in specific_modules or for all cars in common_modules (CFG-10)`},
		{"module common and specific", strings.Replace(minimalD, `{"v": {}}`, `{"v": {"specific_modules": {"05": {"lib_path": "lib.so"}}}}`, 1), false,
			`config.json:1:159: cars.v.specific_modules.05: the same module number as common_modules.5, which every car gets; remove one (CFG-11)`},
		{"two spellings", strings.Replace(minimalA, `"5": {`, `"1": {"lib_path": "lib.so"}, "01": {`, 1), false,
			`config.json:1:102: modules.01: the same module number as modules.1; remove one (DEF-55)`},
		{"a second module that is wrong itself", strings.Replace(minimalA, `"5": {`, `"1": {"lib_path": "lib.so"}, "01": {"lib_path": 5}, "5": {`, 1), true,
			"config.json:1:102: modules.01: the same module number as modules.1; remove one (DEF-55)\n" +
				"config.json:1:121: modules.01.lib_path: expected the path of the module library"},
		{"module keys", strings.Replace(minimalA, `"5": {`, `"one": {}, "4294967297": {}, "5": {`, 1), true,
			"config.json:1:73: modules.one: expected a module number as the key, digits only and at most 2147483647\n" +
				`config.json:1:84: modules.4294967297: expected a module number as the key, digits only and at most 2147483647`},
		{"module null", strings.Replace(minimalA, `{"lib_path": "lib.so"}`, `null`, 1), true, `config.json:1:78: modules.5: expected an object, got null`},
		{"library missing", strings.Replace(minimalA, `lib.so`, `build/none.so`, 1), false,
			`config.json:1:91: modules.5.lib_path: "build/none.so" does not exist (in DIR); expected the path of a module library`},
		{"library is a directory", strings.Replace(minimalD, `lib.so`, `logs`, 1), false,
			`config.json:1:111: common_modules.5.lib_path: "logs" is not a file; expected the path of a module library`},
		{"library empty", strings.Replace(minimalA, `lib.so`, ``, 1), true, `config.json:1:91: modules.5.lib_path: expected the path of the module library`},
		{"two kinds", strings.Replace(minimalA, `{"lib`, `{"builtin": "io", "lib`, 1), true, `config.json:1:78: modules.5: expected exactly one of lib_path, builtin and command`},
		{"builtin name", strings.Replace(minimalA, `"lib_path": "lib.so"`, `"builtin": "Mission"`, 1), true, `config.json:1:90: modules.5.builtin: expected "mission", "io" or "transparent"`},
		{"builtin number", strings.Replace(minimalA, `"lib_path": "lib.so"`, `"builtin": "mission"`, 1), false, `config.json:1:90: modules.5.builtin: the built-in module mission has number 1, but its key is 5`},
		{"command text", strings.Replace(minimalA, `"lib_path": "lib.so"`, `"command": "./run"`, 1), true, `config.json:1:90: modules.5.command: expected an array of strings, the executable and its arguments, got a string`},
		{"command missing", strings.Replace(minimalA, `"lib_path": "lib.so"`, `"command": ["./lib.so"]`, 1), false,
			`config.json:1:91: modules.5.command: "./lib.so" cannot be executed: permission denied; expected an executable file or a program in PATH`},
		{"isolation", strings.Replace(minimalA, `"lib.so"`, `"lib.so", "isolation": "thread"`, 1), true, `config.json:1:114: modules.5.isolation: expected "process" or "none"`},
		{"answer", strings.Replace(minimalA, `"lib.so"`, `"lib.so", "answer": "soon"`, 1), true, `config.json:1:111: modules.5.answer: expected "queued" or "delivered"`},
		{"poll timeout", strings.Replace(minimalA, `"lib.so"`, `"lib.so", "timeout_ms": 0`, 1), true, `config.json:1:115: modules.5.timeout_ms: expected a whole number from 1 to 2147483647, got 0`},
		{"module config values", strings.Replace(minimalA, `"lib.so"`, `"lib.so", "config": {"a": 1.5, "b": null, "c": ["planted"], "d": {"planted": 1}, "e": 1e999}`, 1), true,
			"config.json:1:117: modules.5.config.a: expected a string, a whole number, true or false, got a fraction or a number too large (MOD-9)\n" +
				"config.json:1:127: modules.5.config.b: expected a string, a whole number, true or false, got null (MOD-9)\n" +
				"config.json:1:138: modules.5.config.c: expected a string, a whole number, true or false, got an array (MOD-9)\n" +
				"config.json:1:156: modules.5.config.d: expected a string, a whole number, true or false, got an object (MOD-9)\n" +
				`config.json:1:177: modules.5.config.e: expected a string, a whole number, true or false, got a fraction or a number too large (MOD-9)`},
		{"reserved keys in A", strings.Replace(minimalA, `"lib.so"`, `"lib.so", "config": {"car_name": "planted"}`, 1), false,
			`config.json:1:112: modules.5.config.car_name: must not be in the config of a module: the server adds it (CFG-4)`},

		// logging
		{"level", with(minimalD, `"logging": {"console": {"level": 10, "use": true}, "file": {"level": "LOUD", "use": true, "path": "none"}}`), true,
			"config.json:1:175: logging.console.level: expected DEBUG, INFO, WARNING, ERROR or CRITICAL\n" +
				"config.json:1:211: logging.file.level: expected DEBUG, INFO, WARNING, ERROR or CRITICAL\n" +
				`config.json:1:240: logging.file.path: "none" does not exist (in DIR); expected an existing directory, create it first`},
		{"log directory of A", with(minimalA, `"log_files_directory": "lib.so", "log_files_to_keep": -1`), true,
			"config.json:1:126: log_files_directory: \"lib.so\" is not a directory; expected an existing directory\n" +
				`config.json:1:157: log_files_to_keep: expected a whole number from 0 to 10000, got -1`},
		{"log directory of B", with(minimalD, `"logging": {"log-path": "none", "verbose": 2}`), true,
			"config.json:1:166: logging.log-path: \"none\" does not exist (in DIR); expected an existing directory, create it first\n" +
				`config.json:1:185: logging.verbose: expected true or false (or "yes", "no", 1, 0)`},

		// services
		{"embedded broker", with(minimalD, `"embedded_broker": {"listen": "1883", "tls": {"cert_file": "cert.pem"}, "users": [{"name": "a", "password": ""}, {"name": "a", "password": "planted"}, 3]}`), true,
			"config.json:1:172: embedded_broker.listen: expected host:port, such as \"127.0.0.1:1883\"\n" +
				"config.json:1:187: embedded_broker.tls.key_file: required, but missing; expected the path of its PEM private key\n" +
				"config.json:1:250: embedded_broker.users[0].password: must not be empty\n" +
				"config.json:1:255: embedded_broker.users[1].name: the same name as an earlier user; names must differ\n" +
				`config.json:1:293: embedded_broker.users[2]: expected an object, got a number`},
		{"open broker", with(minimalD, `"embedded_broker": {"listen": ":1883"}`), false,
			`config.json:1:161: embedded_broker.users: required, because the broker listens beyond this machine and anyone who reaches it could be any car; add users, or tls with client_ca_file, or "insecure": true to accept that`},
		{"broker for nobody", with(minimalD, `"embedded_broker": {"listen": "0.0.0.0:1883", "users": []}`), false,
			`config.json:1:197: embedded_broker.users: required, because the broker listens beyond this machine and anyone who reaches it could be any car; add users, or tls with client_ca_file, or "insecure": true to accept that`},
		{"open HTTP API", with(minimalD, `"http_api": {"listen": "0.0.0.0:8080", "store": "mysql://planted", "retention_s": 0}`), true,
			"config.json:1:154: http_api.keys_file: required, because the API listens beyond this machine; expected the file of its API keys\n" +
				"config.json:1:190: http_api.store: expected \"sqlite:PATH\" or \"postgres://…\"\n" +
				`config.json:1:224: http_api.retention_s: 0 cannot work; expected 1 seconds or more`},
		{"open admin", with(minimalD, `"admin": {"listen": ":8090"}`), false,
			`config.json:1:151: admin.tokens: required, because the endpoint listens beyond this machine; add tokens, or "insecure": true to let anybody in`},
		{"admin tokens", with(minimalD, `"admin": {"tokens": [{"name": "x", "role": "root", "token": 5}]}`), true,
			"config.json:1:185: admin.tokens[0].role: expected \"read\" or \"operate\"\n" +
				`config.json:1:202: admin.tokens[0].token: expected a string, got a number`},
		{"tracing", with(minimalD, `"tracing": {"endpoint": "localhost:4318", "sample_ratio": 2}`), true,
			"config.json:1:166: tracing.endpoint: expected a URL such as \"http://127.0.0.1:4318\", without user name\n" +
				`config.json:1:200: tracing.sample_ratio: expected a number from 0 to 1, got 2`},
		// CFG-2: whole milliseconds; CLI-14.
		{"session timeout", strings.Replace(minimalD, `"h"`, `"h", "timeout_ms": 1500.5`, 1), false,
			`config.json:1:87: external_communication.timeout_ms: expected a whole number of milliseconds, 1 or more and at most 1000000000000, got 1500.5`},
		{"log file nowhere", with(minimalD, `"logging": {"console": {"level": "INFO"}, "file": {"level": "INFO", "use": true}}`), false,
			`config.json:1:192: logging.file.path: required when the file is used; expected an existing directory, "." is the working directory`},
		{"limits", with(minimalD, `"limits": {"module_queue": 0, "stop_timeout_ms": "soon", "payload_bytes": true}`), true,
			"config.json:1:169: limits.module_queue: expected a whole number from 1 to 10000000, got 0\n" +
				"config.json:1:191: limits.stop_timeout_ms: expected a whole number of milliseconds, 1 or more and at most 1000000000000, got a string\n" +
				`config.json:1:216: limits.payload_bytes: expected a whole number from 1 to 268435456, got a boolean`},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, "config.json", c.text)
			cfg, _, err := Load("config.json", nil)
			var errs Errors
			if !errors.As(err, &errs) || cfg != nil {
				t.Fatalf("Load returned %v, %v; want Errors and no configuration", cfg, err)
			}
			if got := strings.ReplaceAll(err.Error(), cwd, "DIR"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if strings.Contains(err.Error(), "planted") {
				t.Errorf("a secret is quoted: %v", err)
			}
			value, jsonErr := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(c.text)))
			if jsonErr == nil && (validator.Validate(value) != nil) != c.shape {
				t.Errorf("the schema refuses it: %v, want %v", !c.shape, c.shape)
			}
		})
	}
}

func compiled(t testing.TB) *jsonschema.Schema {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", value); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}
