package config

import (
	"net"
	"strconv"
	"time"

	"external-server/internal/config/address"
	"external-server/internal/config/document"
)

// Ports of MQTT, used when none is configured.
const (
	defaultPort    = 1883
	defaultPortTLS = 8883
)

// brokerKeys are the names one notation gives to the settings of the broker.
type brokerKeys struct {
	address, port, timeout             string
	timeoutUnit                        time.Duration
	username, password, connections    string
	clientID                           string
	tls, caFile, certFile, privKeyFile string
}

var flatBroker = brokerKeys{
	address: "mqtt_address", port: "mqtt_port", timeout: "mqtt_timeout", timeoutUnit: time.Second,
	username: "mqtt_username", password: "mqtt_password", connections: "mqtt_connections", clientID: "mqtt_client_id",
	tls: "mqtt_tls", caFile: "mqtt_ca_certs_file", certFile: "mqtt_cert_file", privKeyFile: "mqtt_key_file",
}

var blockBroker = brokerKeys{
	address: "server_address", port: "server_port", timeout: "timeout_ms", timeoutUnit: time.Millisecond,
	username: "username", password: "password", connections: "connections", clientID: "client_id",
	tls: "tls", caFile: "ca_certs_file", certFile: "cert_file", privKeyFile: "key_file",
}

func (k brokerKeys) all() []string {
	return []string{k.address, k.port, k.timeout, k.username, k.password, k.connections, k.clientID, k.tls, k.caFile, k.certFile, k.privKeyFile}
}

func hasFlatBroker(top *document.Object) bool {
	for _, k := range flatBroker.all() {
		if top.Has(k) {
			return true
		}
	}
	return false
}

// broker reads the connection to the broker in the notation of format D or that
// of the others; D's wins (CFG-1).
func (l *loader) broker(top *document.Object, cfg *Config) {
	block := top.Get("external_communication")
	if block == nil {
		l.brokerBy(top, flatBroker, cfg)
		return
	}
	for _, key := range flatBroker.all() {
		if top.Get(key) != nil {
			l.Warnf(top.KeyAt(key), key, "ignored, because external_communication is present and wins (CFG-1)")
		}
	}
	o := l.Object(block, "external_communication")
	if o == nil {
		return
	}
	if n := o.Get("protocol"); n != nil && (n.Kind != document.KindString || n.Text != "MQTT") {
		l.Errorf(n.Off, o.Key("protocol"), `expected "MQTT"; there is no other protocol`)
	}
	l.brokerBy(o, blockBroker, cfg)
	o.Finish()
}

func (l *loader) brokerBy(o *document.Object, k brokerKeys, cfg *Config) {
	b := &cfg.Broker
	schemeTLS := false
	given := o.Get(k.address)
	switch {
	case given != nil && given.Kind != document.KindString:
		l.Wrong(given, o.Key(k.address), "a host name or IP address")
	case given != nil && (given.Text != "" || cfg.EmbeddedBroker == nil):
		host, secure, fault := address.Broker(given.Text)
		if fault != "" {
			l.Errorf(given.Off, o.Key(k.address), "%s", fault)
		}
		b.Host, schemeTLS = host, secure
	case cfg.EmbeddedBroker == nil:
		other := "an embedded_broker block"
		if k == flatBroker {
			other = "an external_communication or embedded_broker block"
		}
		l.Errorf(o.Value.Off, o.Key(k.address), "required, but missing; expected the host name of the MQTT broker, or %s", other)
	}
	if n := o.Get(k.port); n != nil {
		if v, ok := n.Number(); ok && v == 0 {
			l.Errorf(n.Off, o.Key(k.port), "nothing can be reached on port 0; expected the port of the broker, usually %d", defaultPort)
		} else {
			b.Port = int(o.Integer(k.port, 0, 1, 65535))
		}
	}
	cfg.SessionTimeout = o.Duration(k.timeout, k.timeoutUnit, defaultSessionTimeout, leastTimeout)
	if n := o.Get(k.timeout); n != nil && cfg.SessionTimeout < advisedSessionTimeout {
		l.Warnf(n.Off, o.Key(k.timeout), "below %v s sessions of gateways that merely stall are ended (GW-57)", advisedSessionTimeout.Seconds())
	}
	b.Connections = int(o.Integer(k.connections, 0, 0, 64))
	b.ClientID = l.clientID(o, k.clientID)
	l.brokerTLS(o, k, b, schemeTLS)
	cfg.defaultPort = b.Port == 0
	cfg.settlePort()
	l.credentials(o, k, cfg)
}

// ownBroker tells whether the server connects to its embedded broker.
func (c *Config) ownBroker() bool {
	if c.EmbeddedBroker == nil || c.Broker.Host == "" {
		return c.EmbeddedBroker != nil
	}
	given := net.JoinHostPort(c.Broker.Host, strconv.Itoa(c.Broker.Port))
	_, port, err := net.SplitHostPort(c.EmbeddedBroker.Listen)
	return given == c.EmbeddedBroker.Listen || err == nil && address.Loopback(given) && port == strconv.Itoa(c.Broker.Port)
}

// settlePort chooses the usual port when none was configured.
func (c *Config) settlePort() {
	switch {
	case !c.defaultPort || c.Broker.Host == "":
	case c.Broker.TLS != nil:
		c.Broker.Port = defaultPortTLS
	default:
		c.Broker.Port = defaultPort
	}
}

// credentials reads user name and password; those of the environment win. On
// the embedded broker the server logs in as the first user when none is named.
func (l *loader) credentials(o *document.Object, k brokerKeys, cfg *Config) {
	b := &cfg.Broker
	b.Username = o.Str(k.username, "")
	b.Password = NewSecret(o.Str(k.password, ""))
	where := o.KeyAt(k.password)
	if v, ok := l.lookupEnv(EnvUsername); ok {
		b.Username = v
	}
	if v, ok := l.lookupEnv(EnvPassword); ok {
		b.Password = NewSecret(v)
	}
	if b.Username == "" && !b.Password.IsZero() {
		l.Errorf(where, o.Key(k.password), "a password without user name; expected %s (or %s in the environment) too", o.Key(k.username), EnvUsername)
	}
	if !cfg.ownBroker() || len(cfg.EmbeddedBroker.Users) == 0 {
		return
	}
	users := cfg.EmbeddedBroker.Users
	for _, u := range users {
		if b.Username == "" && u.Car == "" {
			b.Username, b.Password = u.Name, u.Password
			return
		}
		if u.Name == b.Username && u.Car == "" && u.Password.Equal(b.Password) {
			return
		}
	}
	if b.Username == "" {
		l.Errorf(l.users, "embedded_broker.users", "every user is restricted to a car; add one without car, with which the server itself logs in")
		return
	}
	l.Errorf(o.KeyAt(k.username), o.Key(k.username), "no user of embedded_broker without car has this name and password; leave it out to use the first one")
}

// brokerTLS reads the TLS files. TLS is on when any is set, or by the switch;
// files beside a switch that is off are kept for --tls (DEF-30).
func (l *loader) brokerTLS(o *document.Object, k brokerKeys, b *Broker, schemeTLS bool) {
	files := TLS{
		CAFile:   l.pemFile(o, k.caFile),
		CertFile: l.pemFile(o, k.certFile),
		KeyFile:  l.pemFile(o, k.privKeyFile),
	}
	l.note(PlaceBrokerCA, o.At(k.caFile), o.Key(k.caFile))
	l.note(PlaceBrokerCert, o.At(k.certFile), o.Key(k.certFile))
	switch {
	case files.CertFile != "" && files.KeyFile == "":
		l.Errorf(o.KeyAt(k.certFile), o.Key(k.certFile), "a certificate without private key; expected %s too", o.Key(k.privKeyFile))
	case files.CertFile == "" && files.KeyFile != "":
		l.Errorf(o.KeyAt(k.privKeyFile), o.Key(k.privKeyFile), "a private key without certificate; expected %s too", o.Key(k.certFile))
	}
	b.files = files
	if o.Boolean(k.tls, schemeTLS || files != TLS{}) {
		b.TLS = &files
	}
}

// pemFile reads the path of a file that must be readable; empty is none.
func (l *loader) pemFile(o *document.Object, key string) string {
	path := o.Str(key, "")
	if path == "" {
		return ""
	}
	if fault := l.files.Readable(path); fault != "" {
		l.Errorf(o.Value.Member(key).Off, o.Key(key), "%s", fault)
	}
	return path
}
