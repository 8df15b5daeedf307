package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"external-server/internal/config/document"
	"external-server/internal/config/files"
)

// Defaults of keys that may be left out. The times follow GW-57: a gateway
// waits 5 s for each of our messages, so there is no use in waiting longer for
// one of its; it may be silent for 28 s in normal communication.
const (
	defaultMessageTimeout = 5 * time.Second
	defaultSessionTimeout = 30 * time.Second
	defaultRetryDelay     = time.Second
	leastRetryDelay       = 100 * time.Millisecond // "0" must not become a busy loop
	leastTimeout          = time.Millisecond
	advisedMessageTimeout = 3 * time.Second  // GW-57
	advisedSessionTimeout = 30 * time.Second // GW-57
)

// Environment variables that replace the broker's user name and password.
const (
	EnvUsername = "EXTERNAL_SERVER_MQTT_USERNAME"
	EnvPassword = "EXTERNAL_SERVER_MQTT_PASSWORD"
)

// Problem is one error or warning about a configuration. Its text says what was
// expected and never quotes secrets (CFG-22, DEF-45).
type Problem = document.Problem

// Errors are all errors of one configuration, in the order of the file.
type Errors = document.Errors

// Load reads and validates the file at path, whichever of the four formats it
// has. It returns the configuration and its warnings. The error is of type
// Errors and lists everything that is wrong at once, in the order of the file.
// Relative paths in the file are relative to the working directory. lookupEnv is
// os.LookupEnv; nil means that the environment is empty.
func Load(path string, lookupEnv func(string) (string, bool)) (*Config, []Problem, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	l := newLoader(path, data, lookupEnv)
	cfg := l.load()
	return l.result(cfg)
}

// LoadElsewhere is Load on a machine that does not run the configuration: the libraries,
// directories and secrets of which it names the files need not be there, and are not
// read.
func LoadElsewhere(path string, lookupEnv func(string) (string, bool)) (*Config, []Problem, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	l := newLoader(path, data, lookupEnv)
	l.files.Skip = true
	return l.result(l.load())
}

// readFile returns the content of a regular file of bounded size (CLI-9).
func readFile(path string) ([]byte, error) {
	fail := func(text string) error { return Errors{{File: path, Text: text}} }
	absolute, err := filepath.Abs(path)
	if err != nil {
		absolute = path
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fail(fmt.Sprintf("the configuration file was not found: %s; give its path with -c or as the argument", absolute))
	case err != nil:
		return nil, fail("the configuration cannot be read: " + files.Reason(absolute, err))
	case !info.Mode().IsRegular():
		return nil, fail(fmt.Sprintf("%s is not a regular file; expected a JSON file", absolute))
	case info.Size() > document.MaxBytes:
		return nil, fail(document.TooLarge)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fail("the configuration cannot be read: " + files.Reason(absolute, err))
	}
	defer func() { _ = file.Close() }() // nothing was written
	data, err := io.ReadAll(io.LimitReader(file, document.MaxBytes+1))
	switch {
	case err != nil:
		return nil, fail("the configuration cannot be read: " + files.Reason(absolute, err))
	case len(data) > document.MaxBytes:
		return nil, fail(document.TooLarge) // it has grown
	}
	return data, nil
}

// loader turns one document into a Config.
type loader struct {
	*document.Reader
	path      string
	root      *document.Value // nil: the document is no object
	lookupEnv func(string) (string, bool)
	files     files.Checker
	places    map[string]place
	users     int // where embedded_broker.users stands
	// labelNames are those of the labels of all cars so far.
	labelNames map[string]struct{}
	converted  bool                   // a module's config had values that were not strings
	hostname   func() (string, error) // of this machine
}

func newLoader(path string, data []byte, lookupEnv func(string) (string, bool)) *loader {
	if lookupEnv == nil {
		lookupEnv = func(string) (string, bool) { return "", false }
	}
	return &loader{Reader: document.NewReader(path, data), path: path, lookupEnv: lookupEnv, hostname: os.Hostname}
}

func (l *loader) result(cfg *Config) (*Config, []Problem, error) {
	warnings, err := l.Result()
	if err != nil {
		return nil, warnings, err
	}
	return cfg, warnings, nil
}

// load reads the document. The broker, the cars and logging may each be in the
// notation of any format; their combination names the format.
func (l *loader) load() *Config {
	top := l.Root()
	if top == nil {
		return nil
	}
	l.root = top.Value
	cfg := &Config{Source: l.path, Format: formatOf(top)}
	top.Get("$schema")
	cfg.Company = l.name(top, "company_name", "the name of the company")
	if tooLong(cfg.Company, "") {
		l.Errorf(top.At("company_name"), "company_name", nameTooLong)
	}
	cfg.MessageTimeout = top.Duration("timeout", time.Second, defaultMessageTimeout, leastTimeout)
	if n := top.Get("timeout"); n != nil && cfg.MessageTimeout < advisedMessageTimeout {
		l.Warnf(n.Off, "timeout", "below %v s gateways on slow networks never finish the connect sequence (GW-57)", advisedMessageTimeout.Seconds())
	}
	cfg.RetryDelay = max(leastRetryDelay, top.Duration("sleep_duration_after_connection_refused", time.Second, defaultRetryDelay, 0))
	cfg.SendInvalidCommand = top.Boolean("send_invalid_command", false)
	cfg.Presence = top.Boolean("presence", false)
	l.state(top, cfg)
	cfg.EmbeddedBroker = l.embeddedBroker(top)
	l.broker(top, cfg)
	l.cars(top, cfg)
	cfg.Logging = l.logging(top, cfg.Format)
	cfg.Limits = l.limits(top)
	cfg.HTTPAPI = l.httpAPI(top)
	cfg.Admin = l.admin(top)
	cfg.Tracing = l.tracing(top)
	cfg.Cluster = l.cluster(top, cfg)
	cfg.spool()
	l.clashes(cfg)
	cfg.places = l.places
	top.Finish()
	return cfg
}

// formatOf names the format by the keys that only one of them has.
func formatOf(top *document.Object) Format {
	single := top.Has("car_name") || top.Has("modules") || top.Has("log_files_directory")
	logging := top.Value.Member("logging")
	switch {
	case single && !top.Has("cars"):
		return FormatA
	case top.Has("external_communication"):
		return FormatD
	case logging != nil && (logging.Member("log-path") != nil || logging.Member("verbose") != nil):
		return FormatB
	case hasFlatBroker(top):
		return FormatC
	}
	return FormatD
}

// name reads a company or car name (VOC-1, VOC-2): part of every topic, so it
// may not be empty although the reference takes an empty one.
func (l *loader) name(o *document.Object, key, what string) string {
	n := o.Required(key, what)
	if n == nil {
		return ""
	}
	if n.Kind != document.KindString {
		l.Wrong(n, o.Key(key), "a string")
		return ""
	}
	if fault := nameFault(n.Text); fault != "" {
		l.Errorf(n.Off, o.Key(key), "%s", fault)
	}
	return n.Text
}

func nameFault(name string) string {
	if name == "" {
		return "must not be empty: it is part of every topic, and no gateway has an empty one; expected lower-case letters, digits and _"
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
		default:
			return "expected lower-case letters, digits and _ only (VOC-1)"
		}
	}
	return ""
}
