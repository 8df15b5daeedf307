package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/httpapi/crowd"
	"external-server/internal/observe"
)

// Bounds of the endpoint.
const (
	maxConnections = 512
	maxRequests    = 64 // at a time of those who may ask; streams, probes and files not counted
	maxStreams     = 64
	maxHeader      = 16 << 10 // bytes
	maxBody        = 64 << 10 // bytes
	headerTimeout  = 5 * time.Second
	requestTimeout = 30 * time.Second // to read a request, to write an answer
	briefTimeout   = 5 * time.Second  // to write a file of the dashboard, a probe's answer, a refusal
	reloadTimeout  = 90 * time.Second // to answer a reload
	idleTimeout    = 2 * time.Minute
)

// Options of New.
type Options struct {
	Config  config.Admin
	Source  Source
	Hub     *observe.Hub
	Version string
	Logger  *slog.Logger
	// Heartbeat is the time after which a silent stream sends a comment; zero
	// means 15 s.
	Heartbeat time.Duration
	// Cluster is the replicas that share the cars; nil: this server has all of them.
	Cluster Cluster
	// StreamTimeout is how long a reader of a stream may leave everything unread;
	// zero means 10 s.
	StreamTimeout time.Duration
}

// Server is the endpoint. New, Run, and Close if Run was never called.
type Server struct {
	opts     Options
	log      *slog.Logger
	listener net.Listener
	handler  http.Handler
	access   atomic.Pointer[access]
	files    *tlsfiles.Watched // nil: no TLS
	requests chan struct{}     // one token per request under way
	streams  chan struct{}     // one token per stream
	stopping chan struct{}     // closed when streams must end
}

// New listens on the configured address, so that a wrong one is an error at the
// start; Run serves.
func New(opts Options) (*Server, error) {
	if opts.Heartbeat <= 0 {
		opts.Heartbeat = 15 * time.Second
	}
	if opts.StreamTimeout <= 0 {
		opts.StreamTimeout = 10 * time.Second
	}
	s := &Server{
		opts:     opts,
		log:      opts.Logger,
		requests: make(chan struct{}, maxRequests),
		streams:  make(chan struct{}, maxStreams),
		stopping: make(chan struct{}),
	}
	s.access.Store(newAccess(&opts.Config))
	s.handler = s.routes()
	var err error
	if s.files, err = tlsfiles.Watch(opts.Config.TLS); err != nil {
		return nil, fmt.Errorf("admin.tls: %w", err)
	}
	listener, err := net.Listen("tcp", opts.Config.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w; choose another address or end the program that uses it", err)
	}
	if s.files != nil {
		listener = tls.NewListener(listener, s.files.Config())
	}
	s.listener = listener
	return s, nil
}

// Configure puts other tokens in force, from the next request on, and other
// certificate files, from the next connection on; the error is about the latter, of
// which the old ones stay in force then.
func (s *Server) Configure(a config.Admin) error {
	s.access.Store(newAccess(&a))
	return s.files.Use(a.TLS)
}

// Addr is the address the endpoint listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Handler serves the endpoint's requests without its listener.
func (s *Server) Handler() http.Handler { return s.handler }

// Close releases a Server whose Run was never called.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends, then lets requests end for up to a second. It may be
// called once.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // a peer's faults
	}
	crowd.New(maxConnections).Attend(server, s.handler)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		close(s.stopping)
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(bound) != nil {
			_ = server.Close()
		}
	}()
	s.log.Info("admin endpoint", "listen", s.listener.Addr().String(), "tls", s.opts.Config.TLS != nil)
	err := server.Serve(s.listener)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin endpoint: %w", err)
	}
	<-done
	return nil
}

// routes is the whole interface. Patterns decide on the method too: the mux
// answers 405 by itself, which guard turns into a problem.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	read := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, s.allow(config.RoleRead, h)) }
	operate := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, s.allow(config.RoleOperate, h)) }
	mux.HandleFunc("GET /healthz", s.probe(s.healthz))
	mux.HandleFunc("GET /readyz", s.probe(s.readyz))
	read("GET /metrics", promhttp.HandlerFor(s.opts.Hub.Registry(), promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn), EnableOpenMetrics: true, MaxRequestsInFlight: 4,
	}).ServeHTTP)
	read("GET /api/v1/openapi.json", s.openAPI)
	read("GET /api/v1/server", s.server)
	read("GET /api/v1/cars", s.cars)
	read("GET /api/v1/cars/{car}", s.atOwner(s.car))
	read("GET /api/v1/cars/{car}/messages", s.atOwner(s.messages))
	read("GET /api/v1/cars/{car}/commands", s.atOwner(s.commandable))
	read("GET /api/v1/positions", s.atOwner(s.positions))
	read("GET /api/v1/modules", s.modules)
	read("GET /api/v1/events", s.events)
	read("GET /api/v1/history", s.history)
	read("GET /api/v1/alerts", s.alerts)
	read("GET /api/v1/log", s.logLines)
	read("GET /api/v1/log-levels", s.logLevels)
	operate("POST /api/v1/cars/{car}/disconnect", s.atOwner(s.disconnect))
	operate("POST /api/v1/cars/{car}/reannounce", s.atOwner(s.reannounce))
	operate("POST /api/v1/cars/{car}/commands", s.atOwner(s.sendCommand))
	operate("PUT /api/v1/log-levels/{component}", s.setLogLevel)
	operate("DELETE /api/v1/log-levels/{component}", s.resetLogLevel)
	operate("POST /api/v1/reload", s.reload)
	operate("POST /api/v1/stop", s.stop)
	operate("POST /api/v1/drain", s.drain)
	mux.Handle("GET /", s.dashboard())
	return s.guard(mux)
}
