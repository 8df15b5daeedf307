package fleetapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/logging"
)

// api is the part of the Fleet Protocol HTTP API that the modules use. An
// httpapi.API, in this process or elsewhere, fills it.
type api interface {
	PostStatuses(ctx context.Context, car fleet.CarID, messages []httpapi.Message) error
	Commands(ctx context.Context, car fleet.CarID, q httpapi.Query) ([]httpapi.Message, error)
}

// requestTimeout bounds one request, whichever API it goes to (MM-3).
const requestTimeout = 30 * time.Second

// Requests that one host gets at a time. Each may need a new connection, and
// thousands at once would overwhelm the host, as at the start of a large fleet.
const (
	maxPosts   = 256 // with statuses
	maxFlushes = 32  // first polls (REC-20)
)

// Pool holds what all instances share: one HTTP client per configuration (URL,
// key, certificates) and one circuit breaker per API host. Several modules may
// use one Pool. NewPool makes one.
type Pool struct {
	log *slog.Logger

	mu      sync.Mutex
	clients map[clientID]*shared[*httpapi.Client]
	hosts   map[string]*shared[*host]
	shares  map[shareKey]*share
}

// shared counts the instances that use something. What has none is forgotten: keys are
// changed and hosts move, and a server runs for years.
type shared[T any] struct {
	it    T
	users int
}

// clientID is what makes a client another one.
type clientID struct {
	url, key string
	tls      tlsFiles
}

// host is one API host: the breakers of all instances and the bound on requests. Reading
// and writing have a breaker each, because an API may well do the one without
// the other, as with a store that is full.
type host struct {
	name             string
	log              *slog.Logger
	posting, polling *breaker
	posts, flushes   chan struct{} // a token per running request
	limit            logging.Limiter
}

// complain logs an answer that is neither success nor a matter of one status,
// such as 401. It concerns all cars alike, so one line in a while is enough.
func (h *host) complain(what string, err error) {
	text := "the HTTP API does not serve " + what + ", trying again"
	if code := httpapi.StatusOf(err); code == http.StatusUnauthorized || code == http.StatusForbidden {
		text = "the HTTP API refuses the key for " + what + ", trying again; check " + keyKey
	}
	h.limit.Log(h.log, slog.LevelWarn, text, slog.String("api", h.name), slog.Any("error", err))
}

// NewPool makes an empty pool.
func NewPool(log *slog.Logger) *Pool {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Pool{log: log.With(logging.ComponentKey, logging.ComponentModule), clients: make(map[clientID]*shared[*httpapi.Client]), hosts: make(map[string]*shared[*host]), shares: make(map[shareKey]*share)}
}

// Close closes the connections. Instances must have been closed before.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, c := range p.clients {
		c.it.Close()
		delete(p.clients, id)
	}
}

// link is what one instance has of the pool, until its release.
type link struct {
	api     api
	host    *host
	release func() // once
}

// connect returns the API of the settings and its host. local is the API inside
// the process, used without api_url.
func (p *Pool) connect(s settings, local api) (link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.url == "" {
		if local == nil {
			return link{}, fmt.Errorf("key %s: it is missing; expected the URL of the HTTP API such as http://http-api:8080/v2/protocol, or the block http_api, which starts one in the server", keyURL)
		}
		const name = "inside this process"
		return link{local, p.useHost(name), func() { p.release(name, clientID{}) }}, nil
	}
	u, err := url.Parse(s.url)
	if err != nil {
		return link{}, fmt.Errorf("key %s: the value is not a URL", keyURL)
	}
	id := clientID{url: s.url, key: s.key, tls: s.tls}
	client, err := p.useClient(id)
	if err != nil {
		return link{}, err
	}
	name := u.Scheme + "://" + u.Host
	return link{client, p.useHost(name), func() { p.release(name, id) }}, nil
}

// useHost returns the host, with one user more. The lock is held.
func (p *Pool) useHost(name string) *host {
	h := p.hosts[name]
	if h == nil {
		h = &shared[*host]{it: &host{
			name:    name,
			log:     p.log,
			posting: newBreaker(name, "statuses", p.log),
			polling: newBreaker(name, "commands", p.log),
			posts:   make(chan struct{}, maxPosts),
			flushes: make(chan struct{}, maxFlushes),
		}}
		p.hosts[name] = h
	}
	h.users++
	return h.it
}

// useClient returns the client, with one user more. The lock is held.
func (p *Pool) useClient(id clientID) (*httpapi.Client, error) {
	if c := p.clients[id]; c != nil {
		c.users++
		return c.it, nil
	}
	o := httpapi.ClientOptions{URL: id.url, APIKey: config.NewSecret(id.key)}
	if id.tls != (tlsFiles{}) {
		o.TLS = &config.TLS{CAFile: id.tls.ca, CertFile: id.tls.cert, KeyFile: id.tls.key}
	}
	c, err := httpapi.NewClient(o)
	if err != nil {
		return nil, fmt.Errorf("keys %s, %s, %s: %s", keyCA, keyCert, keyKeyFile, id.tls.nameFiles(err.Error()))
	}
	p.clients[id] = &shared[*httpapi.Client]{it: c, users: 1}
	return c, nil
}

// release takes one user from the host and, unless the API is the one inside the
// process, from the client, and forgets what has none left.
func (p *Pool) release(hostName string, id clientID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.hosts[hostName]; h != nil {
		if h.users--; h.users == 0 {
			delete(p.hosts, hostName)
		}
	}
	if c := p.clients[id]; c != nil {
		if c.users--; c.users == 0 {
			c.it.Close()
			delete(p.clients, id)
		}
	}
}

// unavailable tells the breaker's kind of failure: no usable answer, or one that
// says the host cannot work now. A refusal, however unwelcome, shows it alive.
func unavailable(err error) error {
	switch code := httpapi.StatusOf(err); {
	case err == nil:
		return nil
	case code == http.StatusInsufficientStorage: // it has no room for one more car; the others have theirs
		return nil
	case code == 0, code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return err
	}
	return nil
}
