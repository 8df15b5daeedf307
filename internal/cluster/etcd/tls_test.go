package etcd_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"external-server/internal/cluster"
	"external-server/internal/cluster/etcd"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/testwait"
)

// show returns what Options.TLS has for a client that trusts an authority and shows a
// certificate; nil shows none.
func show(c *brokertest.Certs, p *brokertest.Pair) func() (*tls.Config, error) {
	return func() (*tls.Config, error) { return c.ClientConfig(p), nil }
}

// TestTLS: with a client certificate, a user name and a password a replica is a member at
// an etcd that demands all three, also when the certificate is replaced by a good one only
// later. What does not fit is told by name, by a running replica and by a check, without a
// secret.
func TestTLS(t *testing.T) {
	t.Parallel()
	certs, others := brokertest.NewCerts(t), brokertest.NewCerts(t)
	e := etcdtest.Start(t, etcdtest.Options{CertFile: certs.Replica.CertFile, KeyFile: certs.Replica.KeyFile, ClientCAFile: certs.CAFile})
	e.Secure(certs.ClientConfig(&certs.Client), "c", "es", "planted-es")
	opts := func(secure func() (*tls.Config, error), password string) etcd.Options {
		o := options(e.URL(), "a")
		o.TLS, o.Username, o.Password = secure, "es", password
		return o
	}
	plain := opts(nil, "planted-es")
	plain.Endpoints = []string{"http://" + e.Address()}
	t.Run("refused", func(t *testing.T) {
		for name, tt := range map[string]struct {
			opts etcd.Options
			want string
		}{
			"wrong password":                   {opts(show(certs, &certs.Client), "planted-wrong"), "etcd refuses the user name or the password"},
			"wrong authority":                  {opts(show(others, &certs.Client), "planted-es"), "is signed by none of the authorities that this server trusts (cluster.tls.ca_file)"},
			"no certificate":                   {opts(show(certs, nil), "planted-es"), "demands a certificate of this server (cluster.tls.cert_file, cluster.tls.key_file)"},
			"certificate of another authority": {opts(show(certs, &others.Client), "planted-es"), "refuses the certificate of this server (cluster.tls.cert_file): "},
			"expired certificate":              {opts(show(certs, &certs.ClientExpired), "planted-es"), "refuses the certificate of this server (cluster.tls.cert_file), which is not valid now, but from "},
			"no TLS":                           {plain, "if it speaks TLS, write https:// in cluster.etcd"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				told(t, tt.opts, tt.want)
			})
		}
	})
	var renewed atomic.Bool
	r := run(t, opts(func() (*tls.Config, error) {
		if renewed.Load() {
			return certs.ClientConfig(&certs.Client), nil
		}
		return certs.ClientConfig(&certs.ClientExpired), nil
	}, "planted-es"))
	r.until("the certificate has expired", func(st cluster.Status) bool { return strings.Contains(st.Problem, "not valid now") })
	renewed.Store(true)
	r.member()
	r.claim(0)
}

// TestTLSOfEtcd: what is wrong at etcd's side of TLS is told by name.
func TestTLSOfEtcd(t *testing.T) {
	t.Parallel()
	certs := brokertest.NewCerts(t)
	for name, tt := range map[string]struct {
		etcd etcdtest.Options
		want string
	}{
		"expired certificate":         {etcdtest.Options{CertFile: certs.ServerExpired.CertFile, KeyFile: certs.ServerExpired.KeyFile}, "is not valid now, but from "},
		"certificate of another name": {etcdtest.Options{CertFile: certs.ServerOtherName.CertFile, KeyFile: certs.ServerOtherName.KeyFile}, "is for another name"},
		"no TLS":                      {etcdtest.Options{}, "if it speaks no TLS, write http:// in cluster.etcd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := etcdtest.Start(t, tt.etcd)
			o := options("https://"+e.Address(), "a")
			o.TLS = show(certs, nil)
			told(t, o, tt.want)
		})
	}
}

// told demands that a replica and a check with these options say why it is no member.
func told(t *testing.T, opts etcd.Options, want string) {
	t.Helper()
	r := run(t, opts)
	st := r.until("the reason is told", func(st cluster.Status) bool { return strings.Contains(st.Problem, want) })
	r.stop()
	ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
	defer cancel()
	text := st.Problem
	testwait.Until(t, "a check tells the reason", func() bool { // where etcd is slow to answer, it tells only that
		err := fmt.Sprint(etcd.Check(ctx, opts))
		text += err
		return strings.Contains(err, want)
	})
	r.says(strings.SplitN(want, ":", 2)[0])
	if text += r.log.String(); strings.Contains(text, "planted") {
		t.Errorf("a secret is told: %s", text)
	}
}
