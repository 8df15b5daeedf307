package config

import (
	"path/filepath"
	"strings"

	"external-server/internal/config/document"
)

// maxClientID is how long a client id may be, in bytes: what some brokers take at most
// is longer, and its connections' numbers must fit behind it.
const maxClientID = 64

// state reads what lets sessions outlive the process. The directory itself is not
// looked at: trouble with it never keeps cars from being served.
func (l *loader) state(top *document.Object, cfg *Config) {
	cfg.StateDirectory = top.Str("state_directory", "")
	cfg.StateSync = top.Boolean("state_sync", false)
	cfg.OnStop = OnStop(top.Str("on_stop", string(OnStopSuspend)))
	if cfg.OnStop != OnStopSuspend && cfg.OnStop != OnStopNotify {
		l.Wrong(top.Get("on_stop"), "on_stop", `"suspend" (sessions go on with the next start) or "notify" (they end, gateways are told)`)
		cfg.OnStop = OnStopSuspend
	}
	if cfg.StateDirectory != "" {
		return
	}
	for _, key := range []string{"state_sync", "on_stop"} {
		if n := top.Get(key); n != nil {
			l.Warnf(n.Off, key, "has no effect without \"state_directory\"")
		}
	}
}

// clientID reads the client id of the connections to the broker.
func (l *loader) clientID(o *document.Object, key string) string {
	id := o.Str(key, "")
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/+#", r) }
	if len(id) > maxClientID || strings.ContainsFunc(id, odd) {
		l.Wrong(o.Get(key), o.Key(key), "at most 64 printable ASCII characters without blanks, /, + and #")
		return ""
	}
	return id
}

// spool gives built-in modules without a spool of their own one in the state
// directory: what was answered is delivered.
func (c *Config) spool() {
	if c.StateDirectory == "" {
		return
	}
	each := func(modules []Module) {
		for i := range modules {
			if m := &modules[i]; m.Builtin != "" && m.SpoolDirectory == "" {
				m.SpoolDirectory, m.spoolDefault = filepath.Join(c.StateDirectory, "spool"), true
			}
		}
	}
	for i := range c.Cars {
		each(c.Cars[i].Modules)
	}
	if c.AnyCar != nil {
		each(c.AnyCar.Modules)
	}
}
