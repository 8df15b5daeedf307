package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// A request, its body, the answer and its parts as they come reach the other side; the
// handler learns who asked.
func TestReplicasAskEachOther(t *testing.T) {
	for name, o := range ways(t) {
		t.Run(name, func(t *testing.T) {
			next := make(chan string)
			address, _ := start(t, o, func(s *Server) {
				s.Handle("POST /v1/echo/{word}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					from, ok := FromRequest(r)
					w.WriteHeader(http.StatusTeapot)
					fmt.Fprintf(w, "%s %s %q %v %v %s\n", r.PathValue("word"), body, from, ok, err, r.URL.RawQuery)
					for part := range next {
						fmt.Fprintln(w, part)
						if err := http.NewResponseController(w).Flush(); err != nil {
							t.Error(err)
						}
					}
				}))
			})
			r := request(t, "POST", "http://elsewhere/v1/echo/a%2Fb?x=1")
			r.Body = io.NopCloser(strings.NewReader("hello"))
			r.Header.Set("Authorization", "Bearer of-the-client")
			go func() { next <- "first" }()
			answer, err := client(t, o).Do(t.Context(), address, r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			lines := bufio.NewScanner(answer.Body)
			lines.Scan()
			if got, want := lines.Text(), `a/b hello "a" true <nil> x=1`; got != want || answer.StatusCode != http.StatusTeapot {
				t.Fatalf("answer %d %q, want %q", answer.StatusCode, got, want)
			}
			// The second part is sent only after the first has come.
			for i, want := range []string{"first", "second"} {
				if !lines.Scan() || lines.Text() != want {
					t.Fatalf("part %d is %q (%v)", i, lines.Text(), lines.Err())
				}
				if i == 0 {
					next <- "second"
					close(next)
				}
			}
		})
	}
}

// Who is no replica gets 401 before anything of the body was read, and no handler runs.
func TestStrangersAreRefused(t *testing.T) {
	var log testlog.Buffer
	var reached atomic.Int64
	address, _ := start(t, Options{Token: config.NewSecret(secret), Logger: log.Logger()}, func(s *Server) {
		s.Handle("/v1/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	})
	for name, header := range map[string]string{
		"no token":       "X: y",
		"wrong token":    "Authorization: Bearer wrong-" + secret,
		"part of it":     "Authorization: Bearer " + secret[:len(secret)-1],
		"another scheme": "Authorization: Basic " + secret,
		"an empty one":   "Authorization: Bearer ",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			// The body never comes: a server that waits for it does not answer.
			fmt.Fprintf(c, "POST /v1/x HTTP/1.1\r\nHost: x\r\n%s\r\nX-Fleet-Hop: 1\r\nContent-Length: 100000\r\n\r\n", header)
			reader := bufio.NewReader(c)
			answer, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != http.StatusUnauthorized || !strings.Contains(string(text), "cluster.peer_token") {
				t.Errorf("%d %s", answer.StatusCode, text)
			}
			if _, err := reader.ReadByte(); err == nil {
				t.Error("the connection goes on")
			}
		})
	}
	if reached.Load() != 0 {
		t.Error("a stranger reached a handler")
	}
	if !log.Has("refused a request", "reason") || strings.Contains(log.String(), secret) || strings.Contains(log.String(), "wrong-") {
		t.Errorf("log:\n%s", log.String())
	}
	if n := strings.Count(log.String(), "refused a request"); n != 1 {
		t.Errorf("%d lines about strangers within a minute", n)
	}
	// The client of a replica with another token is told what to do.
	_, err := client(t, Options{Token: config.NewSecret("another-token-of-another-cluster")}).Do(t.Context(), address, request(t, "GET", "/v1/x"))
	if ReasonOf(err) != Stranger || !strings.Contains(err.Error(), "cluster.peer_token") || strings.Contains(err.Error(), "another-token") {
		t.Errorf("error %v", err)
	}
}

// Certificates of others, expired ones and none are refused by the handshake, on both
// sides, with an error that says which file to look at.
func TestCertificatesOfStrangers(t *testing.T) {
	ours, theirs := brokertest.NewCerts(t), brokertest.NewCerts(t)
	var reached atomic.Int64
	address, _ := start(t, Options{TLS: files(ours)}, func(s *Server) {
		s.Handle("/v1/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	})
	mixed := func(p brokertest.Pair) *config.TLS {
		return &config.TLS{CAFile: ours.CAFile, CertFile: p.CertFile, KeyFile: p.KeyFile}
	}
	for name, c := range map[string]struct {
		files *config.TLS
		text  string
	}{
		"another authority's":   {mixed(theirs.Replica), "cluster.peer_tls"},
		"expired":               {mixed(ours.ClientExpired), "cluster.peer_tls"},
		"for servers only":      {mixed(ours.Server), "for servers and clients"},
		"trusts another server": {files(theirs), "cluster.peer_tls.ca_file"},
	} {
		_, err := client(t, Options{TLS: c.files}).Do(t.Context(), address, request(t, "GET", "/v1/x"))
		if ReasonOf(err) != Stranger || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %q %v", name, ReasonOf(err), err)
		}
	}
	bare := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ours.Pool}}
	defer bare.CloseIdleConnections()
	if answer, err := (&http.Client{Transport: bare}).Get("https://" + address + "/v1/x"); err == nil {
		answer.Body.Close()
		t.Errorf("without certificate: %d", answer.StatusCode)
	}
	if reached.Load() != 0 {
		t.Error("a stranger reached a handler")
	}
	// A server whose certificate is for another name.
	other, _ := start(t, Options{TLS: mixed(ours.ServerOtherName)}, nil)
	_, err := client(t, Options{TLS: files(ours)}).Do(t.Context(), other, request(t, "GET", "/v1/x"))
	if ReasonOf(err) != Stranger || !strings.Contains(err.Error(), "cluster.peer_address") {
		t.Errorf("another name: %v", err)
	}
}

// Replaced files are in force from the next connection on, on both sides.
func TestNewCertificates(t *testing.T) {
	before, after := brokertest.NewCerts(t), brokertest.NewCerts(t)
	dir := t.TempDir()
	at := &config.TLS{CAFile: dir + "/ca", CertFile: dir + "/cert", KeyFile: dir + "/key"}
	install := func(certs *brokertest.Certs) {
		t.Helper()
		for to, from := range map[string]string{at.CAFile: certs.CAFile, at.CertFile: certs.Replica.CertFile, at.KeyFile: certs.Replica.KeyFile} {
			text, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	install(before)
	address, _ := start(t, Options{TLS: at}, func(s *Server) {
		s.Handle("/v1/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	})
	ask := func(files *config.TLS) error {
		answer, err := client(t, Options{TLS: files}).Do(t.Context(), address, request(t, "GET", "/v1/x"))
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	long := client(t, Options{TLS: at})
	if err := ask(files(before)); err != nil {
		t.Fatal(err)
	}
	install(after)
	if err := ask(files(after)); err != nil {
		t.Errorf("with the new certificates: %v", err)
	}
	if err := ask(files(before)); ReasonOf(err) != Stranger {
		t.Errorf("with the old ones: %v", err)
	}
	answer, err := long.Do(t.Context(), address, request(t, "GET", "/v1/x"))
	if err != nil {
		t.Fatalf("a client that was made before: %v", err)
	}
	answer.Body.Close()
}

// What came from a replica is not passed on again, neither with its context nor as it is.
func TestOneHop(t *testing.T) {
	o := Options{Token: config.NewSecret(secret)}
	c := client(t, o)
	var self string
	results := make(chan error, 2)
	address, _ := start(t, o, func(s *Server) {
		s.Handle("GET /v1/again", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := c.Do(r.Context(), self, r)
			results <- err
			_, err = c.Do(context.Background(), self, r)
			results <- err
		}))
	})
	self = address
	answer, err := c.Do(t.Context(), address, request(t, "GET", "/v1/again"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	for range 2 {
		if err := <-results; ReasonOf(err) != Loop {
			t.Errorf("passed on again: %v", err)
		}
	}
	for _, hops := range []string{"", "0", "2", "-1", "x"} {
		r := request(t, "GET", "http://"+address+"/v1/again")
		r.Header.Set("Authorization", "Bearer "+secret)
		r.Header.Set(hopHeader, hops)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusLoopDetected {
			t.Errorf("%q hops: %d", hops, answer.StatusCode)
		}
	}
}

// A request that is for one replica is answered by no other one that the address leads to, and by the wanted one. What
// a client has written into the header counts for nothing.
func TestOnlyTheWantedReplicaAnswers(t *testing.T) {
	var reached atomic.Int64
	address, _ := start(t, Options{Replica: "here", Token: config.NewSecret(secret)}, func(s *Server) {
		s.Handle("/v1/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	})
	c := client(t, Options{Token: config.NewSecret(secret)})
	for _, wanted := range []string{"there", strings.Repeat("x", 1000)} {
		_, err := c.Do(For(t.Context(), wanted), address, request(t, "POST", "/v1/x"))
		if ReasonOf(err) != Misled || !strings.Contains(err.Error(), "the replica here answers at this address") || len(err.Error()) > 500 {
			t.Errorf("for %.9q: %.600v", wanted, err)
		}
	}
	if reached.Load() != 0 {
		t.Error("the wrong replica has handled a request")
	}
	for _, ctx := range []context.Context{For(t.Context(), "here"), t.Context()} {
		r := request(t, "POST", "/v1/x")
		r.Header.Set(wantedHeader, "of-a-client")
		answer, err := c.Do(ctx, address, r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	if reached.Load() != 2 {
		t.Errorf("%d requests handled", reached.Load())
	}
}

// When the one who asks gives up, so does the handler; when the handler's server stops,
// the one who asks learns it.
func TestTheEndReachesTheOtherSide(t *testing.T) {
	for name, o := range ways(t) {
		t.Run(name, func(t *testing.T) {
			asked, ended := make(chan struct{}, 2), make(chan struct{}, 2)
			address, stop := start(t, o, func(s *Server) {
				s.Handle("GET /v1/wait", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					asked <- struct{}{}
					<-r.Context().Done()
					ended <- struct{}{}
				}))
			})
			c := client(t, o)
			ctx, cancel := context.WithCancel(t.Context())
			results := make(chan error, 1)
			ask := func(ctx context.Context) {
				answer, err := c.Do(ctx, address, request(t, "GET", "/v1/wait"))
				if err == nil {
					answer.Body.Close()
				}
				results <- err
			}
			go ask(ctx)
			<-asked
			cancel()
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("given up: %v", err)
			}
			<-ended
			go ask(t.Context())
			<-asked
			stop()
			<-ended
			<-results
		})
	}
}

// A peer that neither answers nor closes is noticed, although a request may wait for ever.
func TestSilentPeer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	o := Options{Token: config.NewSecret(secret), pingAfter: 10 * time.Millisecond, pingTimeout: 20 * time.Millisecond}
	var e *Error
	testwait.Until(t, "a request was sent", func() bool { // on a busy machine the ping may come first
		_, err = client(t, o).Do(t.Context(), listener.Addr().String(), request(t, "POST", "/v1/wait"))
		if !errors.As(err, &e) || e.Reason != Unreachable || e.Sent && !strings.Contains(err.Error(), "does not answer") {
			t.Fatalf("%v (%+v)", err, e)
		}
		return e.Sent
	})
	address := listener.Addr().String()
	listener.Close()
	_, err = client(t, o).Do(t.Context(), address, request(t, "POST", "/v1/wait"))
	if !errors.As(err, &e) || e.Reason != Unreachable || e.Sent || !strings.Contains(err.Error(), address) {
		t.Errorf("nothing listens: %v (%+v)", err, e)
	}
}

func TestLimits(t *testing.T) {
	o := Options{Token: config.NewSecret(secret)}
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	address, _ := start(t, o, func(s *Server) {
		s.HandleWithin("POST /v1/small", Limits{Body: 10}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			}
		}))
		s.HandleWithin("GET /v1/few", Limits{Requests: 2}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			entered <- struct{}{}
			<-leave
		}))
		s.HandleWithin("POST /v1/slow", Limits{Time: time.Millisecond}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			if err == nil {
				t.Error("a body that does not come was read")
			}
		}))
		s.Handle("GET /v1/panic", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("on purpose") }))
	})
	c := client(t, o)
	for body, want := range map[string]int{"0123456789": 200, "0123456789a": 413} {
		for _, known := range []bool{true, false} {
			r, _ := http.NewRequest("POST", "/v1/small", strings.NewReader(body))
			if !known {
				r.ContentLength = -1
			}
			answer, err := c.Do(t.Context(), address, r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("%d bytes (said: %v): %d", len(body), known, answer.StatusCode)
			}
		}
	}
	results := make(chan error, 2)
	for range 2 {
		go func() {
			answer, err := c.Do(t.Context(), address, request(t, "GET", "/v1/few"))
			if err == nil {
				answer.Body.Close()
			}
			results <- err
		}()
	}
	<-entered
	<-entered
	if _, err := c.Do(t.Context(), address, request(t, "GET", "/v1/few")); ReasonOf(err) != Busy {
		t.Errorf("the third of two: %v", err)
	}
	// One endpoint's crowd is not the others' concern.
	if answer, err := c.Do(t.Context(), address, request(t, "POST", "/v1/small")); err != nil {
		t.Error(err)
	} else {
		answer.Body.Close()
	}
	close(leave)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	pipe, end := io.Pipe()
	defer end.Close()
	r, _ := http.NewRequest("POST", "/v1/slow", pipe)
	if answer, err := c.Do(t.Context(), address, r); err == nil {
		answer.Body.Close()
	}
	if _, err := c.Do(t.Context(), address, request(t, "GET", "/v1/panic")); ReasonOf(err) != Unreachable {
		t.Errorf("a handler that panics: %v", err)
	}
	if _, err := c.Do(t.Context(), address, request(t, "GET", "/v1/nothing")); ReasonOf(err) != Unknown {
		t.Errorf("an endpoint of another version: %v", err)
	}
}

func TestWrongConfiguration(t *testing.T) {
	certs := brokertest.NewCerts(t)
	token := config.NewSecret(secret)
	for name, c := range map[string]struct {
		listen string
		o      Options
		text   string
	}{
		"neither":            {"127.0.0.1:0", Options{}, "cluster.peer_tls"},
		"short token":        {"127.0.0.1:0", Options{Token: config.NewSecret("short-token")}, "11 characters"},
		"token with a blank": {"127.0.0.1:0", Options{Token: config.NewSecret("sixteen characters at least")}, "blank"},
		"no CA":              {"127.0.0.1:0", Options{TLS: &config.TLS{CertFile: "x", KeyFile: "y"}}, "ca_file"},
		"no file":            {"127.0.0.1:0", Options{TLS: &config.TLS{CAFile: certs.CAFile, CertFile: "/none", KeyFile: "/none"}}, "/none"},
		"public address":     {"192.0.2.1:0", Options{Token: token}, "192.0.2.1"},
		"no port":            {"127.0.0.1", Options{Token: token}, "HOST:PORT"},
		"not ours":           {"127.0.0.1:99999", Options{Token: token}, "cluster.peer_listen"},
	} {
		s, err := Listen(t.Context(), c.listen, options(t, c.o))
		if err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "cluster.") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// No packet leaves for a public address.
	_, err := client(t, Options{Token: token}).Do(t.Context(), "192.0.2.1:7400", request(t, "GET", "/v1/x"))
	if ReasonOf(err) != Unreachable || !strings.Contains(err.Error(), "public address") {
		t.Errorf("the token left the private network: %v", err)
	}
}
