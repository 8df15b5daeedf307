package observe

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric describes one metric of the server; docs/metrics.md lists them.
type Metric struct {
	Name, Type, Help string
	Labels           []string
}

const namespace = "external_server_"

// catalogue makes metrics and remembers what it made.
type catalogue struct {
	registry *prometheus.Registry
	metrics  []Metric
}

func (c *catalogue) add(name, typ, help string, labels []string) {
	c.metrics = append(c.metrics, Metric{Name: namespace + name, Type: typ, Help: help, Labels: labels})
}

func (c *catalogue) counter(name, help string) prometheus.Counter {
	c.add(name, "counter", help, nil)
	m := prometheus.NewCounter(prometheus.CounterOpts{Name: namespace + name, Help: help})
	c.registry.MustRegister(m)
	return m
}

func (c *catalogue) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c.add(name, "counter", help, labels)
	m := prometheus.NewCounterVec(prometheus.CounterOpts{Name: namespace + name, Help: help}, labels)
	c.registry.MustRegister(m)
	return m
}

func (c *catalogue) histogram(name, help string, buckets []float64) prometheus.Histogram {
	c.add(name, "histogram", help, nil)
	m := prometheus.NewHistogram(prometheus.HistogramOpts{Name: namespace + name, Help: help, Buckets: buckets})
	c.registry.MustRegister(m)
	return m
}

func (c *catalogue) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	c.add(name, "histogram", help, labels)
	m := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: namespace + name, Help: help, Buckets: buckets}, labels)
	c.registry.MustRegister(m)
	return m
}

// scraped describes a metric whose value is asked for at every scrape.
func (c *catalogue) scraped(name, typ, help string, labels ...string) scraped {
	c.add(name, typ, help, labels)
	value := prometheus.GaugeValue
	if typ == "counter" {
		value = prometheus.CounterValue
	}
	return scraped{desc: prometheus.NewDesc(namespace+name, help, labels, nil), value: value}
}

// scraped is one metric of the collector.
type scraped struct {
	desc  *prometheus.Desc
	value prometheus.ValueType
}

func (s scraped) send(to chan<- prometheus.Metric, v float64, labels ...string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	to <- prometheus.MustNewConstMetric(s.desc, s.value, v, labels...)
}

// Metrics lists the metrics of the server, sorted by name.
func (h *Hub) Metrics() []Metric {
	out := slices.Clone(h.metrics.made.metrics)
	slices.SortFunc(out, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return out
}
