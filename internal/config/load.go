package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
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
	l.files.skip = true
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
		return nil, fail("the configuration cannot be read: " + reason(absolute, err))
	case !info.Mode().IsRegular():
		return nil, fail(fmt.Sprintf("%s is not a regular file; expected a JSON file", absolute))
	case info.Size() > maxFileBytes:
		return nil, fail(tooLarge)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fail("the configuration cannot be read: " + reason(absolute, err))
	}
	defer func() { _ = file.Close() }() // nothing was written
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, fail("the configuration cannot be read: " + reason(absolute, err))
	case len(data) > maxFileBytes:
		return nil, fail(tooLarge) // it has grown
	}
	return data, nil
}

// loader turns one document into a Config and collects what is wrong with it.
type loader struct {
	path      string
	doc       *document
	lookupEnv func(string) (string, bool)
	files     files
	places    map[string]place
	users     int // where embedded_broker.users stands
	// labelNames are those of the labels of all cars so far.
	labelNames map[string]struct{}
	converted  bool // a module's config had values that were not strings
	errs       problems
	warns      problems
	hostname   func() (string, error) // of this machine
}

func newLoader(path string, data []byte, lookupEnv func(string) (string, bool)) *loader {
	if lookupEnv == nil {
		lookupEnv = func(string) (string, bool) { return "", false }
	}
	return &loader{path: path, doc: newDocument(data), lookupEnv: lookupEnv, hostname: os.Hostname}
}

func (l *loader) problem(off int, key, format string, args []any) Problem {
	line, column := l.doc.position(off)
	return Problem{File: l.path, Line: line, Column: column, Key: key, Text: fmt.Sprintf(format, args...)}
}

func (l *loader) errorf(off int, key, format string, args ...any) {
	l.errs.add(func() Problem { return l.problem(off, key, format, args) })
}

func (l *loader) warnf(off int, key, format string, args ...any) {
	l.warns.add(func() Problem { return l.problem(off, key, format, args) })
}

// wrong reports a value of the wrong type without quoting it.
func (l *loader) wrong(n *node, key, what string) {
	l.errorf(n.off, key, "expected %s, got %s", what, n.kind)
}

func (l *loader) result(cfg *Config) (*Config, []Problem, error) {
	warnings := l.warns.sorted("warnings")
	if len(l.errs.list) > 0 {
		return nil, warnings, Errors(l.errs.sorted("errors"))
	}
	return cfg, warnings, nil
}

// load reads the document. The broker, the cars and logging may each be in the
// notation of any format; their combination names the format.
func (l *loader) load() *Config {
	root, bad := l.doc.parse(func(off int, path, key string) {
		l.errorf(off, join(path, key), "the key appears twice in one object; remove one")
	})
	if bad != nil {
		l.errs = problems{}
		l.errorf(bad.off, "", "%s", bad.text)
		return nil
	}
	top := l.object(&root, "")
	if top == nil {
		return nil
	}
	cfg := &Config{Source: l.path, Format: formatOf(top)}
	top.get("$schema")
	cfg.Company = top.name("company_name", "the name of the company")
	if tooLong(cfg.Company, "") {
		l.errorf(top.value("company_name"), "company_name", nameTooLong)
	}
	cfg.MessageTimeout = top.duration("timeout", time.Second, defaultMessageTimeout, leastTimeout)
	if n := top.get("timeout"); n != nil && cfg.MessageTimeout < advisedMessageTimeout {
		l.warnf(n.off, "timeout", "below %v s gateways on slow networks never finish the connect sequence (GW-57)", advisedMessageTimeout.Seconds())
	}
	cfg.RetryDelay = max(leastRetryDelay, top.duration("sleep_duration_after_connection_refused", time.Second, defaultRetryDelay, 0))
	cfg.SendInvalidCommand = top.boolean("send_invalid_command", false)
	cfg.Presence = top.boolean("presence", false)
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
	top.finish()
	return cfg
}

// formatOf names the format by the keys that only one of them has.
func formatOf(top *object) Format {
	single := top.has("car_name") || top.has("modules") || top.has("log_files_directory")
	logging := top.n.member("logging")
	switch {
	case single && !top.has("cars"):
		return FormatA
	case top.has("external_communication"):
		return FormatD
	case logging != nil && (logging.member("log-path") != nil || logging.member("verbose") != nil):
		return FormatB
	case hasFlatBroker(top):
		return FormatC
	}
	return FormatD
}

// name reads a company or car name (VOC-1, VOC-2): part of every topic, so it
// may not be empty although the reference takes an empty one.
func (o *object) name(key, what string) string {
	n := o.required(key, what)
	if n == nil {
		return ""
	}
	if n.kind != kindString {
		o.l.wrong(n, o.key(key), "a string")
		return ""
	}
	if fault := nameFault(n.text); fault != "" {
		o.l.errorf(n.off, o.key(key), "%s", fault)
	}
	return n.text
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
