package config

import (
	"reflect"
	"strings"
	"testing"
)

// TestMigrate shows file and notes for a file of format A.
func TestMigrate(t *testing.T) {
	examples := readExamples(t)
	write(t, "old.json", strings.Replace(examples["a.json"], `"car_name"`, `"car_nam": 1, "car_name"`, 1))
	got, notes, err := Migrate("old.json")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "company_name": "bring_auto",
  "external_communication": {
    "protocol": "MQTT",
    "server_address": "127.0.0.1",
    "server_port": 1883,
    "timeout_ms": 30500
  },
  "timeout": 10,
  "send_invalid_command": false,
  "sleep_duration_after_connection_refused": 0.5,
  "common_modules": {
    "1000": {
      "lib_path": "./lib.so",
      "config": {}
    },
    "2": {
      "lib_path": "other.so",
      "config": {
        "api_key": "key",
        "api_url": "http://localhost"
      }
    }
  },
  "cars": {
    "virtual_vehicle": {}
  },
  "logging": {
    "console": {
      "level": "INFO",
      "use": true
    },
    "file": {
      "level": "INFO",
      "use": true,
      "path": "./logs/",
      "max_size_bytes": 100000,
      "files_to_keep": 3
    }
  }
}
`
	if string(got) != want {
		t.Errorf("%s", got)
	}
	const wantNotes = `format A became format D
car_name is now cars
modules is now common_modules
mqtt_address is now external_communication.server_address
mqtt_port is now external_communication.server_port
mqtt_timeout is now external_communication.timeout_ms, in milliseconds
log_files_directory is now logging.file.path
log_files_to_keep is now logging.file.files_to_keep
log_file_max_size_bytes is now logging.file.max_size_bytes
the scheme or brackets around the address of the broker are gone
old.json:3:3: car_nam: unknown key, ignored; did you mean car_name?`
	if text := strings.Join(notes, "\n"); text != wantNotes {
		t.Errorf("notes:\n%s", text)
	}
}

// TestMigrateKeepsMeaning loads every example before and after.
func TestMigrateKeepsMeaning(t *testing.T) {
	for name, text := range readExamples(t) {
		t.Run(name, func(t *testing.T) {
			before, _ := mustLoad(t, text)
			raw, _, err := Migrate("config.json")
			if err != nil {
				t.Fatal(err)
			}
			after, warnings := mustLoad(t, string(raw))
			if len(warnings) > 0 {
				t.Errorf("warnings:\n%s\nin\n%s", lines(warnings), raw)
			}
			if after.Format != FormatD {
				t.Errorf("format %s", after.Format)
			}
			normalize(before)
			normalize(after)
			if !reflect.DeepEqual(before, after) {
				t.Errorf("before\n%s\nafter\n%s", before.Redacted(), after.Redacted())
			}
			again, _, err := Migrate("config.json")
			if err != nil || string(again) != string(raw) {
				t.Errorf("a second migration changes the file: %v\n%s", err, again)
			}
		})
	}
}

// normalize removes what a migration is meant to change.
func normalize(c *Config) {
	c.Format, c.defaultPort, c.places = "", false, nil
	if f := &c.Logging.File; f.Use && f.Path == "" {
		f.Path = "." // the same
	}
	for i := range c.Cars {
		for j := range c.Cars[i].Modules {
			m := &c.Cars[i].Modules[j]
			m.KeyPath = strings.Replace(m.KeyPath, "common_modules.", "modules.", 1)
			if len(m.Config) == 0 {
				m.Config = nil
			}
			if m.Builtin == "" {
				m.SpoolMaxBytes = 0
			}
		}
	}
	if c.AnyCar != nil {
		for j := range c.AnyCar.Modules {
			m := &c.AnyCar.Modules[j]
			if len(m.Config) == 0 {
				m.Config = nil
			}
		}
	}
}

// TestMigrateElsewhere needs neither libraries nor directories, ignores the
// environment and keeps secrets, because it writes a configuration.
func TestMigrateElsewhere(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "old.json", `{"company_name": "c", "mqtt_address": "mqtts://h", "mqtt_username": "u", "mqtt_password": "word",
		"common_modules": {"3": {"lib_path": "/none.so", "config": {"api_key": "secret", "n": 5}}}, "cars": {"v": {}}, "logging": {"log-path": "/none", "verbose": false}}`)
	t.Setenv(EnvPassword, "other")
	raw, notes, err := Migrate("old.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"server_address": "h"`, `"tls": true`, `"server_port": 8883`, `"password": "word"`, `"api_key": "secret"`, `"n": "5"`, `"path": "/none"`, `"level": "WARNING"`} {
		if !strings.Contains(string(raw), part) {
			t.Errorf("%s is missing in\n%s", part, raw)
		}
	}
	for _, part := range []string{"format B became format D", "timeout was missing; the default is written", "logging.verbose is now", "as the strings that modules get"} {
		if !strings.Contains(strings.Join(notes, "\n"), part) {
			t.Errorf("the notes do not say %q: %q", part, notes)
		}
	}
	if strings.Contains(strings.Join(notes, "\n"), "secret") {
		t.Errorf("the notes quote a secret: %q", notes)
	}
	write(t, "bad.json", `{"cars": 5}`)
	if _, _, err := Migrate("bad.json"); err == nil || !strings.HasPrefix(err.Error(), "bad.json:1:1: company_name: required") {
		t.Errorf("%v", err)
	}
}
