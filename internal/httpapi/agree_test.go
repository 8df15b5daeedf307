package httpapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/server"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// TestClientAndServerAgree makes the same calls over the network and in the
// process and expects the same answers.
func TestClientAndServerAgree(t *testing.T) {
	s := startServer(t, server.Options{Config: config.HTTPAPI{WaitTimeout: 50 * time.Millisecond}})
	network := newTestClient(t, httpapi.ClientOptions{URL: "http://" + s.Addr().String() + httpapi.BasePath})
	inProcess := newTestClient(t, httpapi.ClientOptions{URL: "http://anything" + httpapi.BasePath, Transport: s.RoundTripper()})
	ctx := context.Background()
	one, seven := int64(1), int64(7)
	apis := map[string]httpapi.API{"core": s.API(), "network": network, "in process": inProcess}
	n := 0
	for name, api := range apis {
		n++
		car := fleet.CarID{Company: "company", Car: fmt.Sprint("car_", n)}
		code := func(what string, err error, want int) {
			t.Helper()
			if httpapi.StatusOf(err) != want {
				t.Errorf("%s: %s: %v, expected %d", name, what, err, want)
			}
		}
		_, err := api.Commands(ctx, car, httpapi.Query{})
		code("commands of an unknown car", err, 404)
		_, err = api.Statuses(ctx, car, httpapi.Query{Wait: true})
		code("statuses of an unknown car", err, 404)
		_, err = api.AvailableDevices(ctx, car, nil)
		code("devices of an unknown car", err, 404)
		code("command for an unknown car", api.PostCommands(ctx, car, []httpapi.Message{apitest.Command(1, 1, "r", `{}`)}), 404)
		code("no status", api.PostStatuses(ctx, car, nil), 0)
		code("bad status", api.PostStatuses(ctx, car, []httpapi.Message{apitest.Status(1, 1, "R", `{}`)}), 400)
		code("bad name", api.PostStatuses(ctx, fleet.CarID{Company: "a b", Car: "?"}, nil), 400)
		code("status", api.PostStatuses(ctx, car, []httpapi.Message{apitest.Status(1, 1, "r", `{"a":"<&>"}`), apitest.Status(2, 1, "r", `[]`)}), 0)
		code("command", api.PostCommands(ctx, car, []httpapi.Message{apitest.Command(2, 1, "r", `"x"`), apitest.Command(1, 1, "r", `[1]`)}), 0)
		got, err := api.Statuses(ctx, car, httpapi.Query{})
		code("statuses", err, 0)
		if len(got) != 2 || string(got[0].Payload.Data) != `{"a":"<&>"}` || got[0].DeviceID != (httpapi.DeviceID{1, "r name", "r", 1}) || got[0].Timestamp == 0 {
			t.Errorf("%s: statuses %+v", name, got)
		}
		polled := make(chan []httpapi.Message, 1)
		api.PollCommands(car, 1, func(m []httpapi.Message, err error) { code("poll", err, 0); polled <- m })
		if m := <-polled; len(m) != 2 || string(m[1].Payload.Data) != `[1]` {
			t.Errorf("%s: polled %+v", name, m)
		}
		got, err = api.Commands(ctx, car, httpapi.Query{Since: got[0].Timestamp + 1_000_000, Wait: true})
		code("nothing", err, 0)
		if len(got) != 0 || got == nil {
			t.Errorf("%s: nothing: %+v", name, got)
		}
		modules, err := api.AvailableDevices(ctx, car, nil)
		code("devices", err, 0)
		if len(modules) != 2 || modules[0].ModuleID != 1 || len(modules[1].DeviceList) != 1 {
			t.Errorf("%s: devices %+v", name, modules)
		}
		modules, err = api.AvailableDevices(ctx, car, &one)
		code("devices of a module", err, 0)
		if len(modules) != 1 || modules[0].DeviceList[0].Name != "r name" {
			t.Errorf("%s: devices %+v", name, modules)
		}
		_, err = api.AvailableDevices(ctx, car, &seven)
		code("unknown module", err, 404)
		cars, err := api.Cars(ctx, httpapi.Query{})
		code("cars", err, 0)
		if len(cars) != n {
			t.Errorf("%s: cars %v", name, cars)
		}
	}
}

func TestClientCloseEndsPolls(t *testing.T) {
	s := startServer(t, server.Options{Config: config.HTTPAPI{WaitTimeout: testwait.Patience}})
	c, err := httpapi.NewClient(httpapi.ClientOptions{URL: "http://" + s.Addr().String() + httpapi.BasePath})
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	stop := c.PollCommands(apitest.Car1, 1, func([]httpapi.Message, error) { t.Error("called after stop") })
	c.PollCommands(apitest.Car1, 1, func(_ []httpapi.Message, err error) { errs <- err })
	testwait.Until(t, "both wait", func() bool { return s.Stats().Waiting == 2 })
	if !stop() || stop() {
		t.Error("stop")
	}
	c.Close()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	c.PollCommands(apitest.Car1, 1, func(_ []httpapi.Message, err error) { errs <- err })
	if err := <-errs; err == nil {
		t.Error("a closed client polls")
	}
	testwait.Until(t, "the server knows", func() bool { return s.Stats().Waiting == 0 })
}

// TestTLS: own authority, client certificates, HTTP/2.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := makeCertificate(t, dir, "ca", nil, nil)
	makeCertificate(t, dir, "server", ca, caKey)
	makeCertificate(t, dir, "client", ca, caKey)
	file := func(name string) string { return filepath.Join(dir, name) }
	log := &testlog.Buffer{}
	s := startServer(t, server.Options{Logger: log.Logger(), Config: config.HTTPAPI{TLS: &config.ServerTLS{CertFile: file("server.crt"), KeyFile: file("server.key"), ClientCAFile: file("ca.crt")}}})
	url := "https://" + s.Addr().String() + httpapi.BasePath
	c := newTestClient(t, httpapi.ClientOptions{URL: url, TLS: &config.TLS{CAFile: file("ca.crt"), CertFile: file("client.crt"), KeyFile: file("client.key")}})
	if err := c.PostStatuses(t.Context(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", `{}`)}); err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: c.OwnTransport()}).Get(url + "/cars")
	if err != nil || response.ProtoMajor != 2 {
		t.Errorf("%v %v, expected HTTP/2", response, err)
	} else {
		_ = response.Body.Close()
	}
	for name, o := range map[string]*config.TLS{"no authority": nil, "no client certificate": {CAFile: file("ca.crt")}} {
		c := newTestClient(t, httpapi.ClientOptions{URL: url, TLS: o})
		if err := c.PostStatuses(context.Background(), apitest.Car1, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, o := range map[string]*config.TLS{"missing": {CAFile: file("none")}, "no certificate": {CAFile: file("ca.key")}, "half": {CertFile: file("client.crt")}} {
		if c, err := httpapi.NewClient(httpapi.ClientOptions{URL: url, TLS: o}); err == nil {
			c.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	for name, o := range map[string]config.ServerTLS{"missing": {CertFile: file("none"), KeyFile: file("none")}, "ca": {CertFile: file("server.crt"), KeyFile: file("server.key"), ClientCAFile: file("server.key")}} {
		if s, err := server.New(t.Context(), server.Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: apitest.TempStore(t), TLS: &o}}); err == nil {
			_ = s.Shutdown(t.Context())
			t.Errorf("%s: accepted", name)
		} else if !strings.HasPrefix(err.Error(), "http_api.tls: ") {
			t.Errorf("%s: error %q", name, err)
		}
	}
}

// TestCertificatesReplaced: both ends use certificates that were replaced while
// they run, without losing HTTP/2, and keep the old ones while the new files are
// no good.
func TestCertificatesReplaced(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca, caKey := makeCertificate(t, dir, "ca", nil, nil)
	makeCertificate(t, dir, "server", ca, caKey)
	makeCertificate(t, dir, "client", ca, caKey)
	s := startServer(t, server.Options{Config: config.HTTPAPI{TLS: &config.ServerTLS{CertFile: file("server.crt"), KeyFile: file("server.key"), ClientCAFile: file("ca.crt")}}})
	url := "https://" + s.Addr().String() + httpapi.BasePath
	c := newTestClient(t, httpapi.ClientOptions{URL: url, TLS: &config.TLS{CAFile: file("ca.crt"), CertFile: file("client.crt"), KeyFile: file("client.key")}})
	var offered *x509.Certificate
	sees := func(want *x509.Certificate) {
		t.Helper()
		c.OwnTransport().CloseIdleConnections() // the next request makes a new connection
		response, err := (&http.Client{Transport: c.OwnTransport()}).Get(url + "/cars")
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := response.TLS.PeerCertificates[0]; !got.Equal(want) || response.ProtoMajor != 2 {
			t.Errorf("the server shows certificate %v over HTTP/%d, expected %v over HTTP/2", got.SerialNumber, response.ProtoMajor, want.SerialNumber)
		}
		offer, err := c.OwnTransport().TLSClientConfig.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if offered, err = x509.ParseCertificate(offer.Certificate[0]); err != nil {
			t.Fatal(err)
		}
	}
	second, _ := makeCertificate(t, dir, "server", ca, caKey)
	own, _ := makeCertificate(t, dir, "client", ca, caKey)
	sees(second)
	if !offered.Equal(own) {
		t.Error("the client offers its old certificate")
	}
	for _, name := range []string{"server.crt", "client.crt"} {
		if err := os.WriteFile(file(name), []byte("half a certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sees(second)
	if !offered.Equal(own) {
		t.Error("the client does not offer the last good certificate")
	}
}

func newTestClient(t testing.TB, o httpapi.ClientOptions) *httpapi.Client {
	t.Helper()
	c, err := httpapi.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// startServer runs a server until the test ends.
func startServer(t testing.TB, o server.Options) *server.Server {
	t.Helper()
	o.Config.Listen, o.Config.Store = "127.0.0.1:0", apitest.TempStore(t)
	s, err := server.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the store is loaded", func() bool { return s.Stats().StoreFault != store.FaultLoading })
	apitest.Run(t, s.Run)
	return s
}

func makeCertificate(t *testing.T, dir, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}
