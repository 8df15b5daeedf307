package config

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/config/address"
	"external-server/internal/config/document"
)

// Environment variables that replace the secrets of the cluster.
const (
	EnvEtcdUsername = "EXTERNAL_SERVER_ETCD_USERNAME"
	EnvEtcdPassword = "EXTERNAL_SERVER_ETCD_PASSWORD"
	EnvPeerToken    = "EXTERNAL_SERVER_PEER_TOKEN"
)

// Cluster lets several servers share the cars of one configuration.
type Cluster struct {
	Etcd     []string // URLs, all http or all https
	Username string   // at etcd; empty: none
	Password Secret
	TLS      *TLS   // to etcd; nil: the URLs are http
	Name     string // of the cluster, the same for all replicas
	Replica  string // name of this server, its own
	// PeerListen is where this server listens for the others, host:port.
	PeerListen string
	// PeerAddress is where the others reach it, host:port; empty: the address that it
	// listens on, which is then one that can be reached.
	PeerAddress string
	PeerTLS     *PeerTLS // mutual; exactly one of PeerTLS and PeerToken is set
	// PeerToken is sent without TLS. A replica that listens with it takes only what comes from
	// addresses for which address.Private is true.
	PeerToken Secret
	Shards    int           // fixed when the cluster is made
	Lease     time.Duration // whole seconds: so long after its last sign of life a server's cars are taken over

	nameDefault, replicaDefault bool
}

// PeerTLS names the files with which servers of a cluster trust each other: each
// presents the certificate in both directions.
type PeerTLS struct {
	CAFile   string // signed the certificates of all
	CertFile string
	KeyFile  string
}

// Bounds and defaults of the cluster.
const (
	defaultShards  = 32
	maxShards      = 64
	defaultLease   = 3 * time.Second
	leastLease     = 2 * time.Second // etcd makes longer what is shorter
	maxLease       = time.Minute
	maxEtcd        = 16
	leastToken     = 16 // characters
	longestToken   = 1024
	maxClusterName = 32
	maxReplicaName = 64
	defaultPeers   = "127.0.0.1:8070"
)

var (
	clusterName = regexp.MustCompile(`^[a-z0-9_-]+$`)
	replicaName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
)

// cluster reads the block with which several servers share the cars. What else is
// configured is known by then.
func (l *loader) cluster(top *document.Object, cfg *Config) *Cluster {
	o := top.Block("cluster")
	if o == nil {
		return nil
	}
	c := &Cluster{
		Shards: int(o.Integer("shards", defaultShards, 1, maxShards)),
		Lease:  o.Duration("lease_ms", time.Millisecond, defaultLease, leastLease),
	}
	l.note(o.Key("shards"), o.At("shards"), o.Key("shards"))
	if n := o.Get("lease_ms"); c.Lease > maxLease || c.Lease%time.Second != 0 {
		l.Errorf(n.Off, o.Key("lease_ms"), "expected whole seconds from %d to %d, in milliseconds", leastLease.Milliseconds(), maxLease.Milliseconds())
	}
	l.etcd(o, c)
	l.clusterNames(o, c, cfg.Company)
	l.peers(o, c)
	if l.remoteEtcd(c) && address.Loopback(cmp.Or(c.PeerAddress, c.PeerListen)) {
		l.Warnf(o.At("peer_listen"), o.Key("peer_listen"), "servers on other machines cannot reach this one at %s; unless all run here, set an address that they reach, or %s", cmp.Or(c.PeerAddress, c.PeerListen), o.Key("peer_address"))
	}
	l.clusterNeeds(o, cfg)
	o.Finish()
	return c
}

// etcd reads how etcd is reached.
func (l *loader) etcd(o *document.Object, c *Cluster) {
	const expected = `an array of URLs such as ["http://etcd-0.example.org:2379"]`
	n := o.Required("etcd", expected)
	l.note(o.Key("etcd"), o.At("etcd"), o.Key("etcd"))
	secure, plain := false, false
	switch {
	case n == nil:
	case n.Kind != document.KindArray:
		l.Wrong(n, o.Key("etcd"), expected)
	case len(n.Items) == 0 || len(n.Items) > maxEtcd:
		l.Errorf(n.Off, o.Key("etcd"), "expected 1 to %d URLs", maxEtcd)
	default:
		for i := range n.Items {
			item, key := &n.Items[i], o.Key("etcd")+"["+strconv.Itoa(i)+"]"
			if item.Kind != document.KindString {
				l.Wrong(item, key, "a URL")
				continue
			}
			u, fault := address.Etcd(item.Text)
			if fault != "" {
				l.Errorf(item.Off, key, "%s", fault)
				continue
			}
			secure, plain = secure || u.Scheme == "https", plain || u.Scheme == "http"
			c.Etcd = append(c.Etcd, u.String())
		}
		if secure && plain {
			l.Errorf(n.Off, o.Key("etcd"), "some are http, some https; expected one of the two for all")
		}
	}
	c.Username, c.Password = o.Str("username", ""), NewSecret(o.Str("password", ""))
	if v, ok := l.lookupEnv(EnvEtcdUsername); ok {
		c.Username = v
	}
	if v, ok := l.lookupEnv(EnvEtcdPassword); ok {
		c.Password = NewSecret(v)
	}
	switch {
	case c.Username == "" && !c.Password.IsZero():
		l.Errorf(o.KeyAt("password"), o.Key("password"), "a password without user name; expected %s (or %s in the environment) too", o.Key("username"), EnvEtcdUsername)
	case c.Username != "" && c.Password.IsZero():
		l.Errorf(o.KeyAt("username"), o.Key("username"), "a user name without password; expected %s (or %s in the environment) too", o.Key("password"), EnvEtcdPassword)
	case c.Username != "" && plain && l.remoteEtcd(c):
		l.Warnf(o.KeyAt("username"), o.Key("username"), "the password goes to etcd without encryption; use https URLs")
	}
	l.etcdTLS(o, c, plain)
}

// remoteEtcd tells whether a member of etcd runs on another machine.
func (*loader) remoteEtcd(c *Cluster) bool {
	return slices.ContainsFunc(c.Etcd, func(text string) bool {
		u, err := url.Parse(text)
		return err == nil && !address.Loopback(u.Host)
	})
}

func (l *loader) etcdTLS(o *document.Object, c *Cluster, plain bool) {
	t := o.Block("tls")
	if t == nil {
		if len(c.Etcd) > 0 && !plain {
			c.TLS = &TLS{} // the authorities of the system
		}
		return
	}
	l.note(t.Path, t.Value.Off, t.Path)
	c.TLS = &TLS{CAFile: l.pemFile(t, "ca_file"), CertFile: l.pemFile(t, "cert_file"), KeyFile: l.pemFile(t, "key_file")}
	switch {
	case c.TLS.CertFile != "" && c.TLS.KeyFile == "":
		l.Errorf(t.KeyAt("cert_file"), t.Key("cert_file"), "a certificate without private key; expected %s too", t.Key("key_file"))
	case c.TLS.CertFile == "" && c.TLS.KeyFile != "":
		l.Errorf(t.KeyAt("key_file"), t.Key("key_file"), "a private key without certificate; expected %s too", t.Key("cert_file"))
	}
	t.Finish()
	if plain {
		l.Errorf(o.KeyAt("tls"), t.Path, "the URLs of etcd are http, which is without TLS; expected https URLs, or no tls")
	}
}

// clusterNames reads the names of the cluster and of this server.
func (l *loader) clusterNames(o *document.Object, c *Cluster, company string) {
	c.Name = o.Str("name", company)
	c.nameDefault = o.Value.Member("name") == nil
	switch {
	case c.nameDefault && (c.Name == "" || len(c.Name) <= maxClusterName):
	case c.nameDefault:
		l.Errorf(o.Value.Off, o.Key("name"), "required, because the name of the company is longer than %d bytes; expected a shorter name of the cluster", maxClusterName)
	case len(c.Name) > maxClusterName || !clusterName.MatchString(c.Name):
		l.Errorf(o.At("name"), o.Key("name"), "expected 1 to %d lower-case letters, digits, - and _", maxClusterName)
	}
	n := o.Get("replica")
	if n == nil {
		c.Replica, c.replicaDefault = l.machine(), true
	} else {
		c.Replica = o.Str("replica", "")
	}
	if n != nil && n.Kind != document.KindString {
		return // told already
	}
	if len(c.Replica) > maxReplicaName || !replicaName.MatchString(c.Replica) {
		off, why := o.At("replica"), ""
		if n == nil {
			off, why = o.Value.Off, "required, because the name of this machine cannot be the default; "
		}
		l.Errorf(off, o.Key("replica"), "%sexpected 1 to %d letters, digits, -, _ and dots, different for each server", why, maxReplicaName)
	}
}

// machine returns the name of this machine, without its domain when it is long.
func (l *loader) machine() string {
	name, err := l.hostname()
	if err != nil {
		return "" // told where a name is needed
	}
	if len(name) > maxReplicaName {
		name, _, _ = strings.Cut(name, ".")
	}
	return name
}

// peers reads where servers reach each other, and how they prove who they are.
func (l *loader) peers(o *document.Object, c *Cluster) {
	const expected = "the address on which this server listens for the others, such as \"10.0.0.1:8070\""
	o.Required("peer_listen", expected)
	c.PeerListen = l.listenAt(o, "peer_listen", defaultPeers)
	host, port, _ := net.SplitHostPort(c.PeerListen)
	ip, all := address.ListenIP(host)
	if n := o.Get("peer_address"); n != nil {
		c.PeerAddress = l.peerAddress(o, n)
	} else if all && o.Has("peer_listen") {
		l.Errorf(o.At("peer_listen"), o.Key("peer_address"), "required, because %s stands for every address of this machine; expected host:port at which the other servers reach this one", o.Key("peer_listen"))
	}
	if n := o.Value.Member("peer_address"); n != nil && port == "0" {
		l.Errorf(o.At("peer_listen"), o.Key("peer_listen"), "port 0 is any free one, which %s cannot name; expected the port", o.Key("peer_address"))
	}
	l.peerTLS(o, c)
	token := o.Get("peer_token")
	c.PeerToken = NewSecret(o.Str("peer_token", ""))
	if v, ok := l.lookupEnv(EnvPeerToken); ok && v != "" {
		c.PeerToken = NewSecret(v)
	}
	where := o.KeyAt("peer_token")
	switch {
	case c.PeerTLS == nil && c.PeerToken.IsZero():
		l.Errorf(o.Value.Off, o.Key("peer_tls"), "required, but missing; expected ca_file, cert_file and key_file, with which the servers trust each other, or %s on a private network", o.Key("peer_token"))
		return
	case c.PeerTLS != nil && !c.PeerToken.IsZero():
		l.Errorf(where, o.Key("peer_token"), "%s is there too; expected one of the two", o.Key("peer_tls"))
		return
	case c.PeerTLS != nil:
		return
	case len(c.PeerToken.Reveal()) < leastToken || len(c.PeerToken.Reveal()) > longestToken || strings.ContainsFunc(c.PeerToken.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }):
		if token == nil || token.Kind == document.KindString { // of another kind: told already
			l.Errorf(where, o.Key("peer_token"), "expected %d to %d printable ASCII characters without blanks, the same for all servers, such as openssl rand -hex 32 makes", leastToken, longestToken)
		}
		return
	}
	l.tokenOnly(o, c, ip, all)
}

// tokenOnly judges the addresses of servers that trust each other by a token, which goes
// over the network as it is.
func (l *loader) tokenOnly(o *document.Object, c *Cluster, listen netip.Addr, all bool) {
	const public = "a token goes over the network without encryption, which is for loopback and private addresses only; expected such an address, or %s"
	name := func(host string) (private, name bool) {
		ip, _ := address.ListenIP(host)
		return ip.IsValid() && address.Private(ip), !ip.IsValid()
	}
	if listen.IsValid() && !all && !address.Private(listen) {
		l.Errorf(o.At("peer_listen"), o.Key("peer_listen"), public, o.Key("peer_tls"))
		return
	}
	host, _, err := net.SplitHostPort(c.PeerAddress)
	if private, named := name(host); err == nil && !private && !named {
		l.Errorf(o.At("peer_address"), o.Key("peer_address"), public, o.Key("peer_tls"))
		return
	}
	if !address.Loopback(c.PeerListen) {
		l.Warnf(o.KeyAt("peer_token"), o.Key("peer_token"), "what the servers tell each other, and the token itself, is not encrypted; on a network that others share use %s", o.Key("peer_tls"))
	}
}

func (l *loader) peerTLS(o *document.Object, c *Cluster) {
	t := o.Block("peer_tls")
	if t == nil {
		return
	}
	l.note(t.Path, t.Value.Off, t.Path)
	c.PeerTLS = &PeerTLS{}
	for _, f := range []struct {
		key, what string
		path      *string
	}{
		{"ca_file", "the PEM file of the authority that signed the certificates of all servers", &c.PeerTLS.CAFile},
		{"cert_file", "the PEM certificate of this server, for both directions", &c.PeerTLS.CertFile},
		{"key_file", "its PEM private key", &c.PeerTLS.KeyFile},
	} {
		if t.Required(f.key, f.what) == nil {
			continue
		}
		if *f.path = l.pemFile(t, f.key); *f.path == "" && t.Value.Member(f.key).Kind == document.KindString {
			l.Errorf(t.Value.Member(f.key).Off, t.Key(f.key), "must not be empty; expected %s", f.what)
		}
	}
	t.Finish()
}

// peerAddress reads host:port under which others reach this server.
func (l *loader) peerAddress(o *document.Object, n *document.Value) string {
	text := o.Str("peer_address", "")
	if n.Kind != document.KindString {
		return ""
	}
	host, port, err := net.SplitHostPort(text)
	p, bad := strconv.ParseUint(port, 10, 16)
	_, all := address.ListenIP(host)
	if ip, notIP := netip.ParseAddr(host); notIP != nil && !address.IsHostname(host) || ip.IsUnspecified() {
		all = true
	}
	if err != nil || bad != nil || p == 0 || all {
		l.Errorf(n.Off, o.Key("peer_address"), `expected host:port at which the other servers reach this one, such as "es-0.example.org:8070"`)
		return ""
	}
	return text
}

// clusterNeeds judges what else is configured.
func (l *loader) clusterNeeds(o *document.Object, cfg *Config) {
	at := o.Value.Off
	if cfg.EmbeddedBroker != nil {
		l.Errorf(at, o.Path, "embedded_broker is there too, which one server alone has; expected an MQTT broker of its own for all servers (external_communication.server_address)")
	}
	if cfg.StateDirectory == "" {
		l.Errorf(at, o.Path, "a server of a cluster keeps sessions on its disk; expected state_directory too, a local directory for each server")
	}
	if h := cfg.HTTPAPI; h != nil && strings.HasPrefix(h.Store.Reveal(), "sqlite:") {
		store := l.places["http_api.store"]
		l.ErrorAt(store.line, store.column, "http_api.store",
			`SQLite serves one server only; in a cluster expected "postgres://…", the same database for all servers`)
	}
	for _, w := range []struct {
		set       bool
		key, text string
	}{
		{cfg.Broker.Connections != 0, "connections", "has no effect in a cluster: each shard has a connection of its own"},
		{cfg.Broker.ClientID != "", "client_id", "has no effect in a cluster: client ids are es-<cluster>-<shard>"},
		{cfg.OnStop == OnStopNotify, "on_stop", "has no effect in a cluster: a stop hands the cars over to the other servers"},
	} {
		if w.set {
			l.Warnf(at, o.Path, "%s %s", w.key, w.text)
		}
	}
}

// cluster writes the block.
func (e encoder) cluster(c *Cluster) document.Ordered {
	o := document.Ordered{{Key: "etcd", Value: c.Etcd}}
	if c.Username != "" {
		o.Add("username", c.Username)
		o.Add("password", e.secret(c.Password))
	}
	files := func(ca, cert, key string) document.Ordered {
		out := document.Ordered{}
		for _, f := range []struct{ key, path string }{{"ca_file", ca}, {"cert_file", cert}, {"key_file", key}} {
			if f.path != "" {
				out.Add(f.key, f.path)
			}
		}
		return out
	}
	if t := c.TLS; t != nil {
		e.optional(&o, "tls", files(t.CAFile, t.CertFile, t.KeyFile), *t == TLS{})
	}
	e.optional(&o, "name", c.Name, c.nameDefault)
	e.optional(&o, "replica", c.Replica, c.replicaDefault)
	o.Add("peer_listen", c.PeerListen)
	if c.PeerAddress != "" {
		o.Add("peer_address", c.PeerAddress)
	}
	if t := c.PeerTLS; t != nil {
		o.Add("peer_tls", files(t.CAFile, t.CertFile, t.KeyFile))
	} else {
		o.Add("peer_token", e.secret(c.PeerToken))
	}
	e.optional(&o, "shards", c.Shards, c.Shards == defaultShards)
	e.optional(&o, "lease_ms", c.Lease.Milliseconds(), c.Lease == defaultLease)
	return o
}
