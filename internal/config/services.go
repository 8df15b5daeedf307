package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"external-server/internal/config/address"
	"external-server/internal/config/document"
)

// Where the server itself listens unless configured otherwise.
const (
	DefaultBrokerListen = "127.0.0.1:1883"
	DefaultAPIListen    = "127.0.0.1:8080"
	DefaultAdminListen  = "127.0.0.1:8090"
)

// Other defaults of what the server itself offers.
const (
	defaultAPIStore      = "sqlite:external_server.db"
	defaultAPICars       = 50_000
	defaultAPIRetention  = time.Hour
	defaultAPIWait       = 5 * time.Second // HTTP-11
	defaultTraceEndpoint = "http://127.0.0.1:4318"
	defaultTraceRatio    = 0.01
)

func (l *loader) embeddedBroker(top *document.Object) *EmbeddedBroker {
	o := top.Block("embedded_broker")
	if o == nil {
		return nil
	}
	b := &EmbeddedBroker{Listen: l.listen(o, DefaultBrokerListen), TLS: l.serverTLS(o)}
	names := make(map[string]struct{})
	l.users = o.At("users")
	o.List("users", func(u *document.Object) {
		user := User{Name: u.Text("name"), Password: NewSecret(u.Text("password"))}
		if u.Has("car") {
			user.Car = l.name(u, "car", "the name of a car")
		}
		if _, ok := names[user.Name]; ok && user.Name != "" {
			l.Errorf(u.Value.Off, u.Key("name"), "the same name as an earlier user; names must differ")
		}
		names[user.Name] = struct{}{}
		b.Users = append(b.Users, user)
	})
	b.Insecure = o.Boolean("insecure", false)
	if !address.Loopback(b.Listen) && len(b.Users) == 0 && (b.TLS == nil || b.TLS.ClientCAFile == "") {
		const open = "the broker listens beyond this machine and anyone who reaches it could be any car"
		if b.Insecure {
			l.Warnf(o.Value.Off, o.Path, open+"; add users, or tls with client_ca_file")
		} else {
			l.Errorf(l.users, o.Key("users"), `required, because `+open+`; add users, or tls with client_ca_file, or "insecure": true to accept that`)
		}
	}
	o.Finish()
	return b
}

func (l *loader) listen(o *document.Object, def string) string { return l.listenAt(o, "listen", def) }

// listenAt reads an address to listen on. Port 0 is any free port.
func (l *loader) listenAt(o *document.Object, key, def string) string {
	text := o.Str(key, def)
	l.note(o.Key(key), o.At(key), o.Key(key))
	host, port, err := net.SplitHostPort(text)
	if err == nil && host != "" && !address.IsHostname(host) {
		_, err = netip.ParseAddr(host)
	}
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		l.Errorf(o.At(key), o.Key(key), `expected host:port, such as %q`, def)
		return def
	}
	return text
}

func (l *loader) serverTLS(parent *document.Object) *ServerTLS {
	o := parent.Block("tls")
	if o == nil {
		return nil
	}
	l.note(o.Path, o.Value.Off, o.Path)
	t := &ServerTLS{}
	for _, f := range []struct {
		key, what string
		path      *string
	}{{"cert_file", "the path of the PEM certificate", &t.CertFile}, {"key_file", "the path of its PEM private key", &t.KeyFile}} {
		if o.Required(f.key, f.what) == nil {
			continue
		}
		if *f.path = l.pemFile(o, f.key); *f.path == "" && o.Value.Member(f.key).Kind == document.KindString {
			l.Errorf(o.Value.Member(f.key).Off, o.Key(f.key), "must not be empty; expected %s", f.what)
		}
	}
	t.ClientCAFile = l.pemFile(o, "client_ca_file")
	o.Finish()
	return t
}

// httpAPI reads the embedded Fleet Protocol HTTP API.
func (l *loader) httpAPI(top *document.Object) *HTTPAPI {
	o := top.Block("http_api")
	if o == nil {
		return nil
	}
	a := &HTTPAPI{
		Listen:      l.listen(o, DefaultAPIListen),
		TLS:         l.serverTLS(o),
		Store:       NewSecret(o.Str("store", defaultAPIStore)),
		KeysFile:    o.Str("keys_file", ""),
		Retention:   o.Duration("retention_s", time.Second, defaultAPIRetention, time.Second),
		MaxCars:     int(o.Integer("max_cars", defaultAPICars, 1, 1_000_000)),
		WaitTimeout: o.Duration("wait_timeout_ms", time.Millisecond, defaultAPIWait, leastTimeout),
	}
	l.note(o.Key("store"), o.At("store"), o.Key("store"))
	l.note(o.Key("keys_file"), o.At("keys_file"), o.Key("keys_file"))
	path, sqlite := strings.CutPrefix(a.Store.Reveal(), "sqlite:")
	switch {
	case !storeValid(a.Store.Reveal()):
		l.Errorf(o.Value.Member("store").Off, o.Key("store"), `expected "sqlite:PATH" or "postgres://…"`)
	case sqlite && l.files.Directory(filepath.Dir(path)) != "": // the store is never printed
		l.Errorf(o.At("store"), o.Key("store"), "the folder of the database is not an existing directory; create it first or correct the path")
	}
	if a.KeysFile == "" && !address.Loopback(a.Listen) {
		l.Errorf(o.Value.Off, o.Key("keys_file"), "required, because the API listens beyond this machine; expected the file of its API keys")
	}
	o.Finish()
	return a
}

func storeValid(store string) bool {
	if path, ok := strings.CutPrefix(store, "sqlite:"); ok {
		return path != ""
	}
	if !strings.HasPrefix(store, "postgres://") && !strings.HasPrefix(store, "postgresql://") {
		return false
	}
	u, err := url.Parse(store)
	return err == nil && (u.Host != "" || u.RawQuery != "")
}

// admin reads the operator's endpoint; an empty listen switches it off.
func (l *loader) admin(top *document.Object) *Admin {
	o := top.Block("admin")
	if o == nil {
		return nil
	}
	off := false
	if n := o.Value.Member("listen"); n != nil && n.Kind == document.KindString && n.Text == "" {
		o.Get("listen")
		off = true
	}
	a := &Admin{}
	if !off {
		a.Listen = l.listen(o, DefaultAdminListen)
	}
	a.TLS = l.serverTLS(o)
	a.PerCarMetrics = o.Boolean("per_car_metrics", false)
	a.Insecure = o.Boolean("insecure", false)
	l.mapTiles(o, a)
	names := make(map[string]struct{})
	o.List("tokens", func(t *document.Object) {
		token := Token{Name: t.Text("name"), Role: Role(t.Str("role", string(RoleRead))), TokenFile: t.Str("token_file", "")}
		token.Token = NewSecret(l.token(t, token.TokenFile))
		if token.Role != RoleRead && token.Role != RoleOperate {
			l.Errorf(t.Value.Member("role").Off, t.Key("role"), `expected "read" or "operate"`)
		}
		if _, ok := names[token.Name]; ok && token.Name != "" {
			l.Errorf(t.Value.Off, t.Key("name"), "the same name as an earlier token; names must differ")
		}
		names[token.Name] = struct{}{}
		for _, other := range a.Tokens {
			if !token.Token.IsZero() && other.Role != token.Role && other.Token.Equal(token.Token) {
				l.Errorf(t.At("token"), t.Key("token"), "the same token as an earlier one with another role; expected a token of its own for each role")
			}
		}
		a.Tokens = append(a.Tokens, token)
	})
	if !off && !address.Loopback(a.Listen) && !o.Has("tokens") && !a.Insecure {
		l.Errorf(o.Value.Off, o.Key("tokens"), `required, because the endpoint listens beyond this machine; add tokens, or "insecure": true to let anybody in`)
	}
	if !off && !address.Loopback(a.Listen) && o.Has("tokens") && len(a.Tokens) == 0 && !a.Insecure {
		l.Errorf(o.KeyAt("tokens"), o.Key("tokens"), `must not be empty, because the endpoint listens beyond this machine; add tokens, or "insecure": true to let anybody in`)
	}
	o.Finish()
	if off {
		return nil
	}
	return a
}

// token returns the bearer token, which is in the file or in token_file.
func (l *loader) token(t *document.Object, file string) string {
	if file == "" {
		return t.Text("token")
	}
	if t.Has("token") {
		t.Get("token")
		l.Errorf(t.KeyAt("token_file"), t.Key("token_file"), "token is there too; expected one of the two")
		return ""
	}
	text, problem := l.files.Secret(file)
	if problem != "" {
		l.Errorf(t.KeyAt("token_file"), t.Key("token_file"), "%s", problem)
	}
	return text
}

func (l *loader) tracing(top *document.Object) *Tracing {
	o := top.Block("tracing")
	if o == nil {
		return nil
	}
	t := &Tracing{Endpoint: o.Str("endpoint", defaultTraceEndpoint), SampleRatio: defaultTraceRatio}
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		l.Errorf(o.Value.Member("endpoint").Off, o.Key("endpoint"), "expected a URL such as %q, without user name", defaultTraceEndpoint)
	}
	if n := o.Get("sample_ratio"); n != nil {
		v, ok := n.Number()
		if !ok || v < 0 || v > 1 {
			o.WrongNumber(n, "sample_ratio", "a number from 0 to 1")
		} else {
			t.SampleRatio = v
		}
	}
	o.Finish()
	return t
}
