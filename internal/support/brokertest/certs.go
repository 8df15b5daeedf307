package brokertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Pair is a certificate with its key, as files and ready for use.
type Pair struct {
	CertFile, KeyFile string
	Certificate       tls.Certificate
}

// Certs is a certification authority made for one test and what it has signed.
type Certs struct {
	CAFile string
	Pool   *x509.CertPool
	// Server is for localhost, 127.0.0.1 and ::1, ServerOtherName for
	// broker.example, ServerExpired has expired an hour ago.
	// ServerCommonName has a common name and no other one.
	Server, ServerOtherName, ServerExpired, ServerCommonName Pair
	Client, ClientExpired                                    Pair
	// Replica is for the same names as Server, and for a client too.
	Replica Pair

	t    testing.TB
	dir  string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

// NewCerts makes an authority and certificates; the files live as long as the
// test.
func NewCerts(t testing.TB) *Certs {
	t.Helper()
	c := &Certs{t: t, dir: t.TempDir(), Pool: x509.NewCertPool()}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	c.key = c.newKey()
	c.ca = c.sign(tmpl, tmpl, c.key)
	c.CAFile = c.write("ca.pem", "CERTIFICATE", c.ca.Raw)
	c.Pool.AddCert(c.ca)
	valid, expired := now.Add(12*time.Hour), now.Add(-time.Hour)
	local := []string{"localhost"}
	c.Server = c.pair("server", local, valid)
	c.ServerOtherName = c.pair("other", []string{"broker.example"}, valid)
	c.ServerExpired = c.pair("server-expired", local, expired)
	c.ServerCommonName = c.pair("localhost", []string{}, valid)
	c.Client = c.pair("client", nil, valid)
	c.ClientExpired = c.pair("client-expired", nil, expired)
	c.Replica = c.pair("replica", local, valid, x509.ExtKeyUsageClientAuth)
	return c
}

// ClientConfig trusts the authority and shows the given certificate; nil shows
// none.
func (c *Certs) ClientConfig(p *Pair) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Pool}
	if p != nil {
		cfg.Certificates = []tls.Certificate{p.Certificate}
	}
	return cfg
}

// ServerConfig shows the given certificate and demands one of the authority.
func (c *Certs) ServerConfig(p Pair) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{p.Certificate},
		ClientCAs: c.Pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

func (c *Certs) pair(name string, hosts []string, until time.Time, besides ...x509.ExtKeyUsage) Pair {
	c.t.Helper()
	c.next++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1 + c.next), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if hosts != nil {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		tmpl.DNSNames = hosts
		if len(hosts) > 0 && hosts[0] == "localhost" {
			tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		}
	}
	tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, besides...)
	key := c.newKey()
	cert := c.sign(tmpl, c.ca, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	return Pair{
		CertFile:    c.write(name+".pem", "CERTIFICATE", cert.Raw),
		KeyFile:     c.write(name+".key", "PRIVATE KEY", der),
		Certificate: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert},
	}
}

func (c *Certs) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	return key
}

func (c *Certs) sign(tmpl, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

func (c *Certs) write(name, kind string, der []byte) string {
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}
