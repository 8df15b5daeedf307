package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
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

func (l *loader) embeddedBroker(top *object) *EmbeddedBroker {
	o := top.block("embedded_broker")
	if o == nil {
		return nil
	}
	b := &EmbeddedBroker{Listen: l.listen(o, DefaultBrokerListen), TLS: l.serverTLS(o)}
	names := make(map[string]struct{})
	l.users = o.value("users")
	l.list(o, "users", func(u *object) {
		user := User{Name: u.text("name"), Password: NewSecret(u.text("password"))}
		if u.has("car") {
			user.Car = u.name("car", "the name of a car")
		}
		if _, ok := names[user.Name]; ok && user.Name != "" {
			l.errorf(u.n.off, u.key("name"), "the same name as an earlier user; names must differ")
		}
		names[user.Name] = struct{}{}
		b.Users = append(b.Users, user)
	})
	b.Insecure = o.boolean("insecure", false)
	if !loopback(b.Listen) && len(b.Users) == 0 && (b.TLS == nil || b.TLS.ClientCAFile == "") {
		const open = "the broker listens beyond this machine and anyone who reaches it could be any car"
		if b.Insecure {
			l.warnf(o.n.off, o.path, open+"; add users, or tls with client_ca_file")
		} else {
			l.errorf(l.users, o.key("users"), `required, because `+open+`; add users, or tls with client_ca_file, or "insecure": true to accept that`)
		}
	}
	o.finish()
	return b
}

// text reads a string that must be there and not be empty.
func (o *object) text(key string) string {
	n := o.required(key, "a string")
	switch {
	case n == nil:
	case n.kind != kindString:
		o.l.wrong(n, o.key(key), "a string")
	case n.text == "":
		o.l.errorf(n.off, o.key(key), "must not be empty")
	default:
		return n.text
	}
	return ""
}

// list reads an array of objects.
func (l *loader) list(o *object, key string, each func(*object)) {
	n := o.get(key)
	if n == nil {
		return
	}
	if n.kind != kindArray {
		l.wrong(n, o.key(key), "an array of objects")
		return
	}
	for i := range n.items {
		item := l.object(&n.items[i], o.key(key)+"["+strconv.Itoa(i)+"]")
		if item != nil {
			each(item)
			item.finish()
		}
	}
}

func (l *loader) listen(o *object, def string) string { return l.listenAt(o, "listen", def) }

// listenAt reads an address to listen on. Port 0 is any free port.
func (l *loader) listenAt(o *object, key, def string) string {
	text := o.str(key, def)
	l.note(o.key(key), o.value(key), o.key(key))
	host, port, err := net.SplitHostPort(text)
	if err == nil && host != "" && !hostname.MatchString(host) {
		_, err = netip.ParseAddr(host)
	}
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		l.errorf(o.value(key), o.key(key), `expected host:port, such as %q`, def)
		return def
	}
	return text
}

// loopback tells whether only this machine can reach the address.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func (l *loader) serverTLS(parent *object) *ServerTLS {
	o := parent.block("tls")
	if o == nil {
		return nil
	}
	l.note(o.path, o.n.off, o.path)
	t := &ServerTLS{}
	for _, f := range []struct {
		key, what string
		path      *string
	}{{"cert_file", "the path of the PEM certificate", &t.CertFile}, {"key_file", "the path of its PEM private key", &t.KeyFile}} {
		if o.required(f.key, f.what) == nil {
			continue
		}
		if *f.path = l.pemFile(o, f.key); *f.path == "" && o.n.member(f.key).kind == kindString {
			l.errorf(o.n.member(f.key).off, o.key(f.key), "must not be empty; expected %s", f.what)
		}
	}
	t.ClientCAFile = l.pemFile(o, "client_ca_file")
	o.finish()
	return t
}

// httpAPI reads the embedded Fleet Protocol HTTP API.
func (l *loader) httpAPI(top *object) *HTTPAPI {
	o := top.block("http_api")
	if o == nil {
		return nil
	}
	a := &HTTPAPI{
		Listen:      l.listen(o, DefaultAPIListen),
		TLS:         l.serverTLS(o),
		Store:       NewSecret(o.str("store", defaultAPIStore)),
		KeysFile:    o.str("keys_file", ""),
		Retention:   o.duration("retention_s", time.Second, defaultAPIRetention, time.Second),
		MaxCars:     int(o.integer("max_cars", defaultAPICars, 1, 1_000_000)),
		WaitTimeout: o.duration("wait_timeout_ms", time.Millisecond, defaultAPIWait, leastTimeout),
	}
	l.note(o.key("store"), o.value("store"), o.key("store"))
	l.note(o.key("keys_file"), o.value("keys_file"), o.key("keys_file"))
	path, sqlite := strings.CutPrefix(a.Store.Reveal(), "sqlite:")
	switch {
	case !storeValid(a.Store.Reveal()):
		l.errorf(o.n.member("store").off, o.key("store"), `expected "sqlite:PATH" or "postgres://…"`)
	case sqlite && l.files.directory(filepath.Dir(path)) != "": // the store is never printed
		l.errorf(o.value("store"), o.key("store"), "the folder of the database is not an existing directory; create it first or correct the path")
	}
	if a.KeysFile == "" && !loopback(a.Listen) {
		l.errorf(o.n.off, o.key("keys_file"), "required, because the API listens beyond this machine; expected the file of its API keys")
	}
	o.finish()
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
func (l *loader) admin(top *object) *Admin {
	o := top.block("admin")
	if o == nil {
		return nil
	}
	off := false
	if n := o.n.member("listen"); n != nil && n.kind == kindString && n.text == "" {
		o.get("listen")
		off = true
	}
	a := &Admin{}
	if !off {
		a.Listen = l.listen(o, DefaultAdminListen)
	}
	a.TLS = l.serverTLS(o)
	a.PerCarMetrics = o.boolean("per_car_metrics", false)
	a.Insecure = o.boolean("insecure", false)
	names := make(map[string]struct{})
	l.list(o, "tokens", func(t *object) {
		token := Token{Name: t.text("name"), Role: Role(t.str("role", string(RoleRead))), TokenFile: t.str("token_file", "")}
		token.Token = NewSecret(l.token(t, token.TokenFile))
		if token.Role != RoleRead && token.Role != RoleOperate {
			l.errorf(t.n.member("role").off, t.key("role"), `expected "read" or "operate"`)
		}
		if _, ok := names[token.Name]; ok && token.Name != "" {
			l.errorf(t.n.off, t.key("name"), "the same name as an earlier token; names must differ")
		}
		names[token.Name] = struct{}{}
		for _, other := range a.Tokens {
			if !token.Token.IsZero() && other.Role != token.Role && other.Token.Equal(token.Token) {
				l.errorf(t.value("token"), t.key("token"), "the same token as an earlier one with another role; expected a token of its own for each role")
			}
		}
		a.Tokens = append(a.Tokens, token)
	})
	if !off && !loopback(a.Listen) && !o.has("tokens") && !a.Insecure {
		l.errorf(o.n.off, o.key("tokens"), `required, because the endpoint listens beyond this machine; add tokens, or "insecure": true to let anybody in`)
	}
	if !off && !loopback(a.Listen) && o.has("tokens") && len(a.Tokens) == 0 && !a.Insecure {
		l.errorf(o.offset("tokens"), o.key("tokens"), `must not be empty, because the endpoint listens beyond this machine; add tokens, or "insecure": true to let anybody in`)
	}
	o.finish()
	if off {
		return nil
	}
	return a
}

// token returns the bearer token, which is in the file or in token_file.
func (l *loader) token(t *object, file string) string {
	if file == "" {
		return t.text("token")
	}
	if t.has("token") {
		t.get("token")
		l.errorf(t.offset("token_file"), t.key("token_file"), "token is there too; expected one of the two")
		return ""
	}
	text, problem := l.files.secret(file)
	if problem != "" {
		l.errorf(t.offset("token_file"), t.key("token_file"), "%s", problem)
	}
	return text
}

func (l *loader) tracing(top *object) *Tracing {
	o := top.block("tracing")
	if o == nil {
		return nil
	}
	t := &Tracing{Endpoint: o.str("endpoint", defaultTraceEndpoint), SampleRatio: defaultTraceRatio}
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		l.errorf(o.n.member("endpoint").off, o.key("endpoint"), "expected a URL such as %q, without user name", defaultTraceEndpoint)
	}
	if n := o.get("sample_ratio"); n != nil {
		v, ok := n.number()
		if !ok || v < 0 || v > 1 {
			o.wrongNumber(n, "sample_ratio", "a number from 0 to 1")
		} else {
			t.SampleRatio = v
		}
	}
	o.finish()
	return t
}
