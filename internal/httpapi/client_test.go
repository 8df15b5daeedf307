package httpapi

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
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/support/testwait"
)

func newTestClient(t testing.TB, o ClientOptions) *Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestClientAndServerAgree makes the same calls over the network and in the
// process and expects the same answers.
func TestClientAndServerAgree(t *testing.T) {
	s := startServer(t, Options{Config: config.HTTPAPI{WaitTimeout: 50 * time.Millisecond}})
	network := newTestClient(t, ClientOptions{URL: "http://" + s.Addr().String() + BasePath})
	inProcess := newTestClient(t, ClientOptions{URL: "http://anything" + BasePath, Transport: s.RoundTripper()})
	ctx := context.Background()
	one, seven := int64(1), int64(7)
	apis := map[string]API{"core": s.API(), "network": network, "in process": inProcess}
	n := 0
	for name, api := range apis {
		n++
		car := fleet.CarID{Company: "company", Car: fmt.Sprint("car_", n)}
		code := func(what string, err error, want int) {
			t.Helper()
			if StatusOf(err) != want {
				t.Errorf("%s: %s: %v, expected %d", name, what, err, want)
			}
		}
		_, err := api.Commands(ctx, car, Query{})
		code("commands of an unknown car", err, 404)
		_, err = api.Statuses(ctx, car, Query{Wait: true})
		code("statuses of an unknown car", err, 404)
		_, err = api.AvailableDevices(ctx, car, nil)
		code("devices of an unknown car", err, 404)
		code("command for an unknown car", api.PostCommands(ctx, car, []Message{command(1, 1, "r", `{}`)}), 404)
		code("no status", api.PostStatuses(ctx, car, nil), 0)
		code("bad status", api.PostStatuses(ctx, car, []Message{status(1, 1, "R", `{}`)}), 400)
		code("bad name", api.PostStatuses(ctx, fleet.CarID{Company: "a b", Car: "?"}, nil), 400)
		code("status", api.PostStatuses(ctx, car, []Message{status(1, 1, "r", `{"a":"<&>"}`), status(2, 1, "r", `[]`)}), 0)
		code("command", api.PostCommands(ctx, car, []Message{command(2, 1, "r", `"x"`), command(1, 1, "r", `[1]`)}), 0)
		got, err := api.Statuses(ctx, car, Query{})
		code("statuses", err, 0)
		if len(got) != 2 || string(got[0].Payload.Data) != `{"a":"<&>"}` || got[0].DeviceID != (DeviceID{1, "r name", "r", 1}) || got[0].Timestamp == 0 {
			t.Errorf("%s: statuses %+v", name, got)
		}
		polled := make(chan []Message, 1)
		api.PollCommands(car, 1, func(m []Message, err error) { code("poll", err, 0); polled <- m })
		if m := <-polled; len(m) != 2 || string(m[1].Payload.Data) != `[1]` {
			t.Errorf("%s: polled %+v", name, m)
		}
		got, err = api.Commands(ctx, car, Query{Since: got[0].Timestamp + 1_000_000, Wait: true})
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
		cars, err := api.Cars(ctx, Query{})
		code("cars", err, 0)
		if len(cars) != n {
			t.Errorf("%s: cars %v", name, cars)
		}
	}
}

// TestClientHidesTheKey makes requests fail in every way and looks for the key.
func TestClientHidesTheKey(t *testing.T) {
	const key = "planted+secret/key"
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	handlers := map[string]http.HandlerFunc{
		"401 that repeats the URL": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.URL.String()+" "+key, http.StatusUnauthorized)
		},
		"problem that repeats it": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(400)
			_, _ = fmt.Fprintf(w, `{"title":"Bad %s","detail":"at %s"}`, key, r.URL)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere?"+r.URL.RawQuery, http.StatusFound)
		},
		"hang up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "[")
		},
		"no JSON": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, r.URL.String())
		},
		"other type": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "[]")
		},
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "["+strings.Repeat(" ", 2000)+"]")
		},
		"no answer":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"unknown host": nil,
	}
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			url := "http://" + closed.Addr().String() + BasePath
			if handler != nil {
				server := httptest.NewServer(handler)
				defer server.Close()
				url = server.URL + BasePath
			}
			c := newTestClient(t, ClientOptions{URL: url, APIKey: config.NewSecret(key), MaxResponse: 1000, Timeout: 300 * time.Millisecond})
			_, err := c.Commands(context.Background(), car1, Query{})
			if err == nil {
				t.Fatal("no error")
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				for _, form := range []string{key, "planted"} {
					if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, form) {
						t.Errorf("the error contains %q: %s", form, text)
					}
				}
			}
			if !strings.Contains(err.Error(), "GET "+url+"/command/company/car_1") {
				t.Errorf("error %q", err)
			}
			if name == "no answer" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("no timeout: %v", err)
			}
			if name == "redirect" && StatusOf(err) != 302 {
				t.Errorf("redirect: %v", err)
			}
		})
	}
}

// TestClientReadsWhatLibrariesCrashOn (MM-14).
func TestClientReadsWhatLibrariesCrashOn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.RawQuery; got != "since=5&wait=true" || r.Header.Get("Accept") != "application/json" || r.Header.Get("User-Agent") != "" {
			t.Errorf("query %s, header %v", got, r.Header)
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, `[{"timestamp":5},{"timestamp":6,"device_id":null,"payload":{"data":1}},{"timestamp":7,"device_id":{"module_id":1},"payload":{"data":null}},
			{"timestamp":8,"device_id":{"module_id":1,"type":2,"role":"r","name":"n","more":1},"payload":{"message_type":"COMMAND","encoding":"JSON","data":5}}]`)
	}))
	defer server.Close()
	c := newTestClient(t, ClientOptions{URL: server.URL})
	got, err := c.Commands(context.Background(), car1, Query{Since: 5, Wait: true})
	if err != nil || len(got) != 4 {
		t.Fatalf("%v, %v", got, err)
	}
	for i, m := range got {
		if m.Timestamp != int64(5+i) || (m.Payload.Data == nil) != (i < 3) {
			t.Errorf("message %d: %+v", i, m)
		}
	}
}

func TestClientURLs(t *testing.T) {
	for _, url := range []string{"", "host:8080", "ftp://host/", "http://", "http://user:planted@host/", "http://host/?a=b", "http://host/#a", "http://[/"} {
		if c, err := NewClient(ClientOptions{URL: url}); err == nil {
			c.Close()
			t.Errorf("%q was accepted", url)
		} else if strings.Contains(err.Error(), "planted") {
			t.Errorf("%q: error %q", url, err)
		}
	}
}

func TestClientCloseEndsPolls(t *testing.T) {
	s := startServer(t, Options{Config: config.HTTPAPI{WaitTimeout: testwait.Patience}})
	c, err := NewClient(ClientOptions{URL: "http://" + s.Addr().String() + BasePath})
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	stop := c.PollCommands(car1, 1, func([]Message, error) { t.Error("called after stop") })
	c.PollCommands(car1, 1, func(_ []Message, err error) { errs <- err })
	testwait.Until(t, "both wait", func() bool { return s.Stats().Waiting == 2 })
	if !stop() || stop() {
		t.Error("stop")
	}
	c.Close()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	c.PollCommands(car1, 1, func(_ []Message, err error) { errs <- err })
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
	log := &logLines{}
	s := startServer(t, Options{Logger: log.logger(), Config: config.HTTPAPI{TLS: &config.ServerTLS{CertFile: file("server.crt"), KeyFile: file("server.key"), ClientCAFile: file("ca.crt")}}})
	url := "https://" + s.Addr().String() + BasePath
	c := newTestClient(t, ClientOptions{URL: url, TLS: &config.TLS{CAFile: file("ca.crt"), CertFile: file("client.crt"), KeyFile: file("client.key")}})
	postStatus(t, c, car1, status(1, 1, "r", `{}`))
	response, err := (&http.Client{Transport: c.own}).Get(url + "/cars")
	if err != nil || response.ProtoMajor != 2 {
		t.Errorf("%v %v, expected HTTP/2", response, err)
	} else {
		_ = response.Body.Close()
	}
	for name, o := range map[string]*config.TLS{"no authority": nil, "no client certificate": {CAFile: file("ca.crt")}} {
		c := newTestClient(t, ClientOptions{URL: url, TLS: o})
		if err := c.PostStatuses(context.Background(), car1, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, o := range map[string]*config.TLS{"missing": {CAFile: file("none")}, "no certificate": {CAFile: file("ca.key")}, "half": {CertFile: file("client.crt")}} {
		if c, err := NewClient(ClientOptions{URL: url, TLS: o}); err == nil {
			c.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	for name, o := range map[string]config.ServerTLS{"missing": {CertFile: file("none"), KeyFile: file("none")}, "ca": {CertFile: file("server.crt"), KeyFile: file("server.key"), ClientCAFile: file("server.key")}} {
		if s, err := New(t.Context(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: tempStore(t), TLS: &o}}); err == nil {
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
	s := startServer(t, Options{Config: config.HTTPAPI{TLS: &config.ServerTLS{CertFile: file("server.crt"), KeyFile: file("server.key"), ClientCAFile: file("ca.crt")}}})
	url := "https://" + s.Addr().String() + BasePath
	c := newTestClient(t, ClientOptions{URL: url, TLS: &config.TLS{CAFile: file("ca.crt"), CertFile: file("client.crt"), KeyFile: file("client.key")}})
	var offered *x509.Certificate
	sees := func(want *x509.Certificate) {
		t.Helper()
		c.own.CloseIdleConnections() // the next request makes a new connection
		response, err := (&http.Client{Transport: c.own}).Get(url + "/cars")
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := response.TLS.PeerCertificates[0]; !got.Equal(want) || response.ProtoMajor != 2 {
			t.Errorf("the server shows certificate %v over HTTP/%d, expected %v over HTTP/2", got.SerialNumber, response.ProtoMajor, want.SerialNumber)
		}
		offer, err := c.own.TLSClientConfig.GetClientCertificate(nil)
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

// TestRoundTripperStreamsAndCancels uses handlers that a client cannot have seen
// to their end.
func TestRoundTripperStreamsAndCancels(t *testing.T) {
	ended := make(chan error, 1)
	transport := handlerTransport{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Test", "yes")
		_, _ = io.WriteString(w, "first ")
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		<-r.Context().Done()
		ended <- r.Context().Err()
	})}
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "POST", "http://x/y?z", strings.NewReader("second"))
	response, err := transport.RoundTrip(r)
	if err != nil || response.StatusCode != 200 || response.Header.Get("X-Test") != "yes" {
		t.Fatalf("%v %v", response, err)
	}
	buffer := make([]byte, len("first second"))
	if _, err := io.ReadFull(response.Body, buffer); err != nil || string(buffer) != "first second" {
		t.Errorf("%q %v", buffer, err) // arrives although the handler has not ended
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = response.Body.Close()

	block := handlerTransport{http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	r, _ = http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
	if _, err := block.RoundTrip(r); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled before an answer: %v", err)
	}
	broken := handlerTransport{http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a fault") })}
	r, _ = http.NewRequest("GET", "http://x/", nil)
	if _, err := broken.RoundTrip(r); err == nil {
		t.Error("a handler that panics answered")
	}
	empty := handlerTransport{http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	response, err = empty.RoundTrip(r)
	if err != nil || response.StatusCode != 200 {
		t.Errorf("empty: %v %v", response, err)
	} else if body, err := io.ReadAll(response.Body); err != nil || len(body) != 0 {
		t.Errorf("empty: %q %v", body, err)
	}
}
