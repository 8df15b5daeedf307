package peer

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/httpapi/crowd"
)

// Bounds of the server.
const (
	maxConnections = 256
	maxStreams     = 5000     // requests on one connection
	maxHeader      = 16 << 10 // bytes
	maxReplica     = 255      // bytes of a name
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute
	stopTimeout    = 3 * time.Second
	strangerPause  = time.Minute // between two lines about strangers
)

// Limits bound the requests of one endpoint. A zero field means the default.
type Limits struct {
	// Body is the size of a request's body in bytes; 1 MiB by default.
	Body int64
	// Requests is how many may be under way; 256 by default.
	Requests int
	// Time is how long a request may take, from its header to the end of its answer;
	// 30 s by default. A handler may move the deadlines itself (http.ResponseController).
	Time time.Duration
}

func (l Limits) filled() Limits {
	if l.Body <= 0 {
		l.Body = 1 << 20
	}
	if l.Requests <= 0 {
		l.Requests = 256
	}
	if l.Time <= 0 {
		l.Time = 30 * time.Second
	}
	return l
}

// Server answers the other replicas. Listen, Handle and Run; Close if Run was never
// called.
type Server struct {
	log      *slog.Logger
	replica  string
	token    []byte // sum; nil: none
	listener net.Listener
	files    *tlsfiles.Watched // nil: no TLS
	mux      *http.ServeMux

	pingAfter, pingTimeout time.Duration

	strangers atomic.Int64
	told      atomic.Int64 // unix ns of the last line about a stranger
}

// Listen makes a server that listens, so that a wrong address or file is an error at the
// start. Its errors name the configuration key.
func Listen(ctx context.Context, listen string, o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{log: o.Logger, replica: o.Replica, mux: http.NewServeMux()}
	s.pingAfter, s.pingTimeout = o.pings()
	if !o.Token.IsZero() {
		sum := sha256.Sum256([]byte(o.Token.Reveal()))
		s.token = sum[:]
	}
	if o.TLS != nil {
		var err error
		s.files, err = tlsfiles.Watch(&config.ServerTLS{CertFile: o.TLS.CertFile, KeyFile: o.TLS.KeyFile, ClientCAFile: o.TLS.CAFile}, "h2", "http/1.1")
		if err != nil {
			return nil, fmt.Errorf("cluster.peer_tls: %w", err)
		}
	} else {
		at, err := public(ctx, listen)
		if err != nil {
			return nil, err
		}
		if at != "" {
			return nil, fmt.Errorf("cluster.peer_listen: %s reaches the public address %s, and connections between replicas are not encrypted; set cluster.peer_tls or listen on an address of a private network", listen, at)
		}
		s.log.Warn("connections between the replicas are not encrypted: everybody on their network can read cluster.peer_token and all that is passed on; use cluster.peer_tls unless you trust that network", "listen", listen)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("cluster.peer_listen: %w; choose another address or end the program that uses it", err)
	}
	s.listener = listener
	return s, nil
}

// Handle serves a pattern of http.ServeMux below /v1/ with the default limits. Requests
// reach the handler only from replicas of the cluster; From names the one. It may be
// called while the server runs; a pattern twice is a panic.
func (s *Server) Handle(pattern string, h http.Handler) { s.HandleWithin(pattern, Limits{}, h) }

// HandleWithin is Handle with limits.
func (s *Server) HandleWithin(pattern string, limits Limits, h http.Handler) {
	l := limits.filled()
	var under atomic.Int64
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		defer under.Add(-1)
		if under.Add(1) > int64(l.Requests) {
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, Busy, fmt.Sprintf("%d requests of this kind are under way at the replica %s, which is the limit", l.Requests, s.replica))
			return
		}
		if r.ContentLength > l.Body {
			http.Error(w, fmt.Sprintf("the body has %d bytes; the limit is %d", r.ContentLength, l.Body), http.StatusRequestEntityTooLarge)
			return
		}
		control, end := http.NewResponseController(w), time.Now().Add(l.Time)
		_ = control.SetReadDeadline(end) // not supported without a connection, where none is held up
		_ = control.SetWriteDeadline(end)
		r.Body = http.MaxBytesReader(w, r.Body, l.Body)
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
				s.log.Error("a request of another replica failed", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				panic(http.ErrAbortHandler)
			} else if p != nil {
				panic(p)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// ServeHTTP admits a request or refuses it, before anything of its body is read.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(replicaHeader, s.replica)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if why := s.stranger(r); why != "" {
		s.tellStranger(r, why)
		// Or net/http would read the body.
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		refuse(w, http.StatusUnauthorized, Stranger, why)
		return
	}
	from := r.Header.Get(replicaHeader)
	if len(from) > maxReplica {
		http.Error(w, "the name of the asking replica is too long", http.StatusBadRequest)
		return
	}
	if wanted := r.Header.Get(wantedHeader); wanted != "" && wanted != s.replica {
		refuse(w, http.StatusMisdirectedRequest, Misled, fmt.Sprintf("the replica %s answers at this address, not %.64q; cluster.peer_address of that one must be an address at which the others reach it, each its own", s.replica, wanted))
		return
	}
	if hops, err := strconv.Atoi(r.Header.Get(hopHeader)); err != nil || hops != 1 {
		refuse(w, http.StatusLoopDetected, Loop, fmt.Sprintf("the header %s is %.20q; a request is passed on once, from the replica that was asked to the one that serves", hopHeader, r.Header.Get(hopHeader)))
		return
	}
	if _, pattern := s.mux.Handler(r); pattern == "" {
		refuse(w, http.StatusNotFound, Unknown, "the replica "+s.replica+" has no such endpoint for the others; do the replicas run versions that belong together?")
		return
	}
	defer crowd.Hold(r.Context())()
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), fromKey{}, from)))
}

// stranger returns why the request comes from no replica of the cluster, "" if it comes
// from one.
func (s *Server) stranger(r *http.Request) string {
	if s.files != nil {
		// The handshake has demanded a certificate of the CA.
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return "a certificate signed by the CA of cluster.peer_tls is needed"
		}
	} else if at, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !private(at.Addr()) {
		return "this connection is not encrypted and comes from a public address; set cluster.peer_tls on all replicas"
	}
	if s.token == nil {
		return ""
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(given))
	if subtle.ConstantTimeCompare(sum[:], s.token) != 1 || !strings.EqualFold(scheme, "Bearer") {
		return "this address is for the replicas of one cluster, which know its cluster.peer_token; the one that was sent is missing or differs"
	}
	return ""
}

func refuse(w http.ResponseWriter, code int, reason Reason, text string) {
	w.Header().Set(refusedHeader, string(reason))
	http.Error(w, text, code)
}

// tellStranger logs one refusal in a minute: strangers could fill the log.
func (s *Server) tellStranger(r *http.Request, why string) {
	total := s.strangers.Add(1)
	now, told := time.Now().UnixNano(), s.told.Load()
	if told != 0 && now-told < int64(strangerPause) || !s.told.CompareAndSwap(told, now) {
		return
	}
	s.log.Warn("the address for other replicas refused a request", "client", r.RemoteAddr, "reason", why, "refused_in_all", total)
}

// Strangers returns how many requests were refused because they came from no replica.
func (s *Server) Strangers() int64 { return s.strangers.Load() }

// Addr is the address the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close releases a Server whose Run was never called.
func (s *Server) Close() error { return s.listener.Close() }

// Use puts other certificate files in force, from the next connection on; on error the
// old ones stay. TLS cannot be switched on or off.
func (s *Server) Use(files *config.TLS) error {
	if files == nil {
		return nil
	}
	return s.files.Use(&config.ServerTLS{CertFile: files.CertFile, KeyFile: files.KeyFile, ClientCAFile: files.CAFile})
}

// Run serves until ctx ends. Then it takes no new requests, ends the contexts of those
// under way after half of stopTimeout and closes the connections after all of it. It may
// be called once.
func (s *Server) Run(ctx context.Context) error {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // so that everybody who comes here by mistake gets a clear answer
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		Protocols:         protocols,
		TLSConfig:         s.files.Config(),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: s.pingAfter, PingTimeout: s.pingTimeout},
		BaseContext:       func(net.Listener) context.Context { return requests },
		// What net/http has to say is about clients: their fault, not ours.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	crowd.New(maxConnections).Attend(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		bound, cancelBound := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancelBound()
		half := time.AfterFunc(stopTimeout/2, cancel)
		defer half.Stop()
		if server.Shutdown(bound) != nil {
			_ = server.Close()
		}
	}()
	s.log.Info("the other replicas are served", "listen", s.listener.Addr().String(), "tls", s.files != nil)
	err := s.serve(server)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the address for other replicas (cluster.peer_listen): %w", err)
	}
	<-done
	return nil
}

func (s *Server) serve(server *http.Server) error {
	if s.files != nil {
		return server.ServeTLS(s.listener, "", "")
	}
	return server.Serve(s.listener)
}
