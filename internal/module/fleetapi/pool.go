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
	clients map[clientID]*httpapi.Client
	hosts   map[string]*host
	shares  map[shareKey]*share
}

// clientID is what makes a client another one.
type clientID struct {
	url, key string
	tls      tlsFiles
}

// host is one API host: everybody's breakers and the bound on requests. Reading
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
	return &Pool{log: log.With(logging.ComponentKey, logging.ComponentModule), clients: make(map[clientID]*httpapi.Client), hosts: make(map[string]*host), shares: make(map[shareKey]*share)}
}

// Close closes the connections. Instances must have been closed before.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.Close()
	}
}

// connect returns the API of the settings and its host. local is the API inside
// the process, used without api_url.
func (p *Pool) connect(s settings, local api) (api, *host, error) {
	if s.url == "" {
		if local == nil {
			return nil, nil, fmt.Errorf("key %s: it is missing; expected the URL of the HTTP API such as http://http-api:8080/v2/protocol, or the block http_api, which starts one in the server", keyURL)
		}
		return local, p.host("inside this process"), nil
	}
	u, err := url.Parse(s.url)
	if err != nil {
		return nil, nil, fmt.Errorf("key %s: the value is not a URL", keyURL)
	}
	client, err := p.client(clientID{url: s.url, key: s.key, tls: s.tls})
	if err != nil {
		return nil, nil, err
	}
	return client, p.host(u.Scheme + "://" + u.Host), nil
}

func (p *Pool) host(name string) *host {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[name]
	if h == nil {
		h = &host{
			name:    name,
			log:     p.log,
			posting: newBreaker(name, "statuses", p.log),
			polling: newBreaker(name, "commands", p.log),
			posts:   make(chan struct{}, maxPosts),
			flushes: make(chan struct{}, maxFlushes),
		}
		p.hosts[name] = h
	}
	return h
}

func (p *Pool) client(id clientID) (*httpapi.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[id]; c != nil {
		return c, nil
	}
	o := httpapi.ClientOptions{URL: id.url, APIKey: config.NewSecret(id.key)}
	if id.tls != (tlsFiles{}) {
		o.TLS = &config.TLS{CAFile: id.tls.ca, CertFile: id.tls.cert, KeyFile: id.tls.key}
	}
	c, err := httpapi.NewClient(o)
	if err != nil {
		return nil, fmt.Errorf("keys %s, %s, %s: %s", keyCA, keyCert, keyKeyFile, id.tls.nameFiles(err.Error()))
	}
	p.clients[id] = c
	return c, nil
}

// unavailable tells the breaker's kind of failure: no usable answer, or one that
// says the host cannot work now. A refusal, however unwelcome, shows it alive.
func unavailable(err error) error {
	switch code := httpapi.StatusOf(err); {
	case err == nil:
		return nil
	case code == 0, code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return err
	}
	return nil
}
