package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/core"
	"external-server/internal/httpapi/keys"
	"external-server/internal/httpapi/store"
)

// Time limits of connections: a client that sends or reads slowly does not hold
// one for ever.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 60 * time.Second // of a whole request
	writeTimeout  = 60 * time.Second // of an answer, beyond the time it may wait
	idleTimeout   = 2 * time.Minute
	defaultBody   = 4 << 20
	maxHeader     = 16 << 10
)

// Options are what a Server is made from. Only Config is required.
type Options struct {
	Config config.HTTPAPI
	Logger *slog.Logger
	// MaxBody bounds the body of a request in bytes; 0 is 4 MiB.
	MaxBody int64
	// MaxWaits bounds the requests held by wait=true at a time; 0 is 50 000.
	MaxWaits int
	// Now is the API's clock; nil is time.Now.
	Now func() time.Time
	// Cluster is set when several servers share the store.
	Cluster *Cluster

	open     func(ctx context.Context) (store.Store, error) // store.Open, for tests
	header   time.Duration                                  // headerTimeout, for tests
	read     time.Duration                                  // readTimeout, for tests
	farewell time.Duration                                  // instead of helloTime and goodbyeTime, for tests
	store    time.Duration                                  // how long the start waits for the store, for tests; 0: as core.Options has it
}

// Server is the embedded Fleet Protocol HTTP API: listener, handler, core and
// store.
type Server struct {
	log      *slog.Logger
	listener *lastCall
	accepts  atomic.Bool // connections are accepted
	http     *http.Server
	visitors visitors
	hello    time.Duration // see helloTime
	goodbye  time.Duration // see goodbyeTime
	handler  *handler
	trusted  *handler // for this process
	core     *core.Core
	secure   bool
	files    *tlsfiles.Watched
	routed   *routed // in a cluster
	end      sync.Once
	ended    chan struct{}
	endErr   error
}

// New does everything that can fail: it reads keys and certificates, opens the
// store and listens. A store that is slow or not reachable is no failure: requests are
// answered with 503 until it is loaded. The caller ends it with Run's context or with Shutdown,
// also when Run was never called. Errors name the configuration key.
func New(ctx context.Context, o Options) (*Server, error) {
	o.setDefaults()
	ring, err := openKeys(o)
	if err != nil {
		return nil, err
	}
	files, err := tlsfiles.Watch(o.Config.TLS, "h2", "http/1.1")
	if err != nil {
		return nil, fmt.Errorf("http_api.tls: %w", err)
	}
	tlsConfig := files.Config()
	listener, err := listen(ctx, o.Config.Listen)
	if err != nil {
		return nil, fmt.Errorf("http_api.listen: %w; choose another address or end the program that uses it", err)
	}
	c := core.New(o.core())
	if err := c.Begin(ctx); err != nil {
		c.Close()
		return nil, errors.Join(err, c.CloseStore(), listener.Close())
	}
	h := &handler{core: c, stats: &requestCounters{requests: map[RequestKey]int64{}}, log: o.Logger, keys: ring, maxBody: o.MaxBody}
	if o.Cluster != nil {
		h.router = &router{core: c, owners: o.Cluster.Owners, peers: o.Cluster.Peers, log: o.Logger, hold: o.Cluster.Hold, most: o.MaxWaits}
	}
	trusted := *h
	trusted.trusted = true
	s := &Server{log: o.Logger, listener: listener, handler: h, trusted: &trusted, core: c, secure: files != nil, files: files, ended: make(chan struct{})}
	if o.Cluster != nil {
		client, err := httpapi.NewClient(httpapi.ClientOptions{URL: "http://in.process" + httpapi.BasePath, Transport: s.RoundTripper()})
		if err != nil {
			return nil, err // the URL is ours
		}
		s.routed = &routed{core: c, client: client}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // one connection carries many long polls
	s.http = &http.Server{
		ReadHeaderTimeout: o.header,
		ReadTimeout:       o.read,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		TLSConfig:         tlsConfig,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000},
		// What net/http has to say is about clients: their fault, not ours.
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	s.visitors.attend(s.http, h)
	s.hello, s.goodbye = cmp.Or(o.farewell, helloTime), cmp.Or(o.farewell, goodbyeTime)
	return s, nil
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.MaxBody <= 0 {
		o.MaxBody = defaultBody
	}
	if o.MaxWaits <= 0 {
		o.MaxWaits = core.DefaultWaits
	}
	if o.Config.Listen == "" {
		o.Config.Listen = "127.0.0.1:8080"
	}
	if o.header == 0 {
		o.header, o.read = headerTimeout, readTimeout
	}
	if o.Cluster != nil && o.Cluster.Hold <= 0 {
		cluster := *o.Cluster
		cluster.Hold = defaultHold
		o.Cluster = &cluster
	}
	if o.open == nil {
		name := o.Config.Store.Reveal()
		o.open = func(ctx context.Context) (store.Store, error) { return store.Open(ctx, name) }
		if c := o.Cluster; c != nil {
			shared := store.Sharing{Replica: c.Replica, Shards: c.Owners.Shards(), ShardOf: c.Owners.Shard}
			o.open = func(ctx context.Context) (store.Store, error) { return store.OpenShared(ctx, name, shared) }
		}
	}
}

// core returns what the core is made from.
func (o *Options) core() core.Options {
	c := core.Options{
		Open: o.open, Logger: o.Logger, Now: o.Now, MaxWaits: o.MaxWaits,
		Retention: o.Config.Retention, WaitTimeout: o.Config.WaitTimeout, MaxCars: o.Config.MaxCars,
		Patience: o.store,
	}
	if o.Cluster != nil {
		c.Owners = o.Cluster.Owners
	}
	return c
}

// openKeys reads the keys. Without any, only this machine may be served.
func openKeys(o Options) (*keys.Ring, error) {
	if o.Config.KeysFile != "" {
		return keys.NewRing(o.Config.KeysFile, o.Logger)
	}
	host, _, err := net.SplitHostPort(o.Config.Listen)
	if err != nil {
		return nil, fmt.Errorf("http_api.listen: %q: expected HOST:PORT, such as 127.0.0.1:8080", o.Config.Listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("http_api.listen: %q can be reached from other machines, but no API keys are configured; set http_api.keys_file and make a key with 'external-server http-api key add NAME', or listen on 127.0.0.1", o.Config.Listen)
	}
	return nil, nil
}

// Run serves until ctx ends and then stops as Shutdown does, within stopTimeout.
// It returns nil after an ordered stop.
func (s *Server) Run(ctx context.Context) error {
	scheme := "http"
	serve := s.http.Serve
	if s.secure {
		scheme = "https"
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	s.log.Info("the HTTP API is served", "url", scheme+"://"+s.Addr().String()+httpapi.BasePath, "keys", s.handler.keys != nil)
	served := make(chan error, 1)
	s.accepts.Store(true)
	go func() { served <- serve(s.listener) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		served <- err
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	stopErr := s.Shutdown(stopping)
	if err = <-served; errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, stopErr)
}

// stopTimeout bounds the stop of Run. Requests that wait are answered at once;
// what remains is the last transaction of the store.
const stopTimeout = 3 * time.Second

// settleTime is how long posts that another replica is to get have at a stop.
const settleTime = time.Second

// settle waits until the owners of their cars have the posts that came before a stop. Nothing new comes.
func (rt *router) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for rt.posting.Load() > 0 {
		timer := time.NewTimer(5 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// farewell takes no new connections, and lets the clients that have one ask and hear that it ends.
func (s *Server) farewell() {
	s.visitors.leaving.Store(true)
	s.listener.end()
	s.visitors.wait(s.hello, func(_, silent int) bool { return silent == 0 })
	s.visitors.dismiss()
	if s.routed != nil { // others serve on
		s.visitors.wait(s.goodbye, func(open, _ int) bool { return open == 0 })
	}
}

// Shutdown takes no new connections, in a cluster lets other replicas have the posts that are under way,
// answers the requests that wait with 503,
// stores what was accepted and closes the store. When ctx ends first it closes
// the connections and returns the error of ctx; the store is then closed as soon
// as its last transaction is over. Calls after the first wait for the first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.end.Do(func() {
		if s.accepts.Load() {
			s.farewell()
		}
		closed := make(chan error, 1)
		go func() { closed <- s.http.Shutdown(ctx) }() // waits for the requests
		if rt := s.handler.router; rt != nil {
			rt.settle(ctx)
		}
		s.core.Stop()
		if s.routed != nil {
			s.routed.client.Close()
		}
		err := <-closed
		if err != nil {
			err = errors.Join(err, s.http.Close())
		}
		_ = s.listener.Close() // Serve was perhaps never called
		go func() {
			defer close(s.ended)
			s.core.Close()
			s.endErr = errors.Join(err, s.core.CloseStore())
		}()
	})
	select {
	case <-s.ended:
		return s.endErr
	case <-ctx.Done():
		return fmt.Errorf("stop the HTTP API: %w", ctx.Err())
	}
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// API returns the API without a network: for built-in modules of this process.
func (s *Server) API() httpapi.API {
	if s.routed != nil {
		return s.routed
	}
	return s.core
}

// Handler returns the API as an HTTP handler, with the checks of keys.
func (s *Server) Handler() http.Handler { return s.handler }

// Configure puts the settings in force that may change while the server runs:
// retention, wait timeout, number of cars and certificate files. The error is about the latter, of
// which the old ones stay in force then.
func (s *Server) Configure(c config.HTTPAPI) error {
	s.core.SetRetention(c.Retention)
	s.core.SetMaxCars(c.MaxCars)
	s.core.SetWaitTimeout(c.WaitTimeout)
	return s.files.Use(c.TLS)
}

// SetWaitTimeout changes how long requests with wait=true are held from now on.
func (s *Server) SetWaitTimeout(d time.Duration) {
	s.core.SetWaitTimeout(d)
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	stats := Stats{Stats: s.core.Stats()}
	stats.Requests, stats.ForOthers = s.handler.stats.snapshot()
	if rt := s.handler.router; rt != nil {
		stats.PassedOn, stats.Held = rt.passed.Load(), int(rt.under.Load())
	}
	return stats
}
