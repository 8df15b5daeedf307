package observe

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"external-server/internal/fleet"
)

// Options of New; zero values mean the defaults.
type Options struct {
	Version string
	// Events is how many events are kept, default 4096.
	Events int
	// PerCar adds series of their own for every car. It may be changed by
	// SetPerCar.
	PerCar bool
	// Sources are what a scrape asks.
	Sources Sources
	// Tracing exports traces; nil: none.
	Tracing *Tracing
	Logger  *slog.Logger
}

// Hub holds what is known of all cars.
type Hub struct {
	Events   *Events
	Started  time.Time
	registry *prometheus.Registry
	metrics  *metrics
	recorder *recorder
	logger   *slog.Logger
	tracer   *tracer // nil: off
	states   [stateCount]atomic.Int64
	perCar   atomic.Bool
	sources  Sources

	mu      sync.Mutex
	cars    map[string]*Car
	modules map[int32]*moduleMetrics
}

// New returns a hub without cars. With tracing, Close must be called.
func New(opts Options) (*Hub, error) {
	if opts.Events <= 0 {
		opts.Events = 4096
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Hub{
		Started: time.Now(),
		cars:    make(map[string]*Car),
		modules: make(map[int32]*moduleMetrics),
	}
	h.Events = newEvents(opts.Events, h.Started)
	h.perCar.Store(opts.PerCar)
	h.sources = opts.Sources
	h.logger = opts.Logger
	var k *collector
	h.registry, h.metrics, k = newMetrics(h, opts)
	h.recorder = newRecorder(h, k, h.metrics)
	if opts.Tracing != nil {
		t, err := newTracer(*opts.Tracing, opts.Version, opts.Logger)
		if err != nil {
			return nil, err
		}
		h.tracer = t
	}
	return h, nil
}

// Close exports the traces that wait, within ctx.
func (h *Hub) Close(ctx context.Context) error {
	if h.tracer == nil {
		return nil
	}
	return h.tracer.close(ctx)
}

// Registry holds the metrics.
func (h *Hub) Registry() *prometheus.Registry { return h.registry }

// SetPerCar switches the series per car on or off.
func (h *Hub) SetPerCar(on bool) { h.perCar.Store(on) }

// Car returns the observer of a car, the same one as long as it is not
// forgotten.
func (h *Hub) Car(id fleet.CarID) *Car {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.cars[id.Car]
	if c == nil {
		c = &Car{hub: h, id: id}
		h.cars[id.Car] = c
		h.states[stateWaiting].Add(1)
	}
	return c
}

// Find returns the observer of a car that is known.
func (h *Hub) Find(name string) (*Car, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.cars[name]
	return c, ok
}

// Forget drops what is remembered of a car that was removed and has ended.
func (h *Hub) Forget(name string) {
	h.mu.Lock()
	c := h.cars[name]
	delete(h.cars, name)
	h.mu.Unlock()
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h.states[c.state].Add(-1)
}

// States counts the cars by state: waiting, connecting, running.
func (h *Hub) States() map[string]int {
	out := make(map[string]int, stateCount)
	for i, name := range stateNames {
		out[name] = int(h.states[i].Load())
	}
	return out
}
