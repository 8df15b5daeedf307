package fleetapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/support/testlog"
)

// authority signs certificates for 127.0.0.1 and clients.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.file, _ = a.issue(name, nil)
	return a
}

// issue writes NAME.pem and NAME.key.
func (a *authority) issue(name string, usage []x509.ExtKeyUsage) (certFile, keyFile string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: usage, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
		a.key = key
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestTLS: own CA, client certificate, HTTP/2 where the server has it.
func TestTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	other := newAuthority(t, "other")
	serverCert, serverKey := ca.issue("server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	clientCert, clientKey := ca.issue("client", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth})
	pair, err := tls.LoadX509KeyPair(serverCert, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	var major atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		major.Store(int64(r.ProtoMajor))
		w.Header().Set("Content-Type", "application/json")
		if _, err := io.WriteString(w, "[]"); err != nil {
			t.Error(err)
		}
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12}
	s.EnableHTTP2 = true
	var serverLog testlog.Buffer
	s.Config.ErrorLog = slogToLog(&serverLog)
	s.StartTLS()
	defer s.Close()

	tests := []struct {
		name  string
		pairs []string
		fault string
	}{
		{"everything right", []string{"ca_file", ca.file, "cert_file", clientCert, "key_file", clientKey}, ""},
		{"another CA", []string{"ca_file", other.file, "cert_file", clientCert, "key_file", clientKey}, "certificate signed by unknown authority"},
		{"the system's CAs", []string{"cert_file", clientCert, "key_file", clientKey}, "certificate signed by unknown authority"},
		{"no client certificate", []string{"ca_file", ca.file}, "does not answer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log testlog.Buffer
			opts := Options{Builtin: IO, Logger: log.Logger()}
			i := open(t, opts, append([]string{"api_url", s.URL + "/v2", "api_key", "SECRET"}, tt.pairs...)...)
			for range breakerThreshold {
				if _, err := i.WaitCommands(t.Context()); err != nil {
					t.Fatal(err)
				}
				if i.poll.primed {
					break
				}
			}
			if i.poll.primed != (tt.fault == "") {
				t.Fatalf("flushed: %v; %s", i.poll.primed, log.String())
			}
			if tt.fault == "" && major.Load() != 2 {
				t.Errorf("HTTP/%d, the server offers 2", major.Load())
			}
			if !strings.Contains(log.String(), tt.fault) || strings.Contains(log.String(), "SECRET") {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}
