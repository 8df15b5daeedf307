package observe

import (
	"errors"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/session"
)

// Buckets in seconds: of what happens inside the server, of what a gateway or a
// person takes part in, and of sessions.
var (
	fastBuckets    = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	peerBuckets    = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	sessionBuckets = []float64{1, 10, 60, 600, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600}
)

// metrics are those the observers of the cars write themselves.
type metrics struct {
	made catalogue

	started, established prometheus.Counter
	resumed              prometheus.Counter
	silence              prometheus.Histogram
	ended                *prometheus.CounterVec // reason, established
	sequence, lasted     prometheus.Histogram
	received, sent       *prometheus.CounterVec // kind
	refused              prometheus.Counter
	answer               prometheus.Histogram
	firstCommands        prometheus.Counter
	unanswered           *prometheus.CounterVec // reason
	atRisk, drops, notes *prometheus.CounterVec // reason, note
	forwarded            *prometheus.CounterVec // module
	handover             *prometheus.HistogramVec
	callTime             *prometheus.HistogramVec // module, call
	calls                *prometheus.CounterVec   // module, call, result
	fetched, commands    *prometheus.CounterVec   // module
	responses            *prometheus.CounterVec   // module, response
	publish, acknowledge *prometheus.HistogramVec // module
	reloads              *prometheus.CounterVec   // result

	// Resolved ahead, because every message needs them.
	receivedKind [4]prometheus.Counter
	sentKind     [4]prometheus.Counter
}

// moduleMetrics are the series of one module.
type moduleMetrics struct {
	number                        int32
	forwarded                     prometheus.Counter
	handover                      prometheus.Observer
	statusTime                    prometheus.Observer
	statusOK                      prometheus.Counter
	fetched, commands, commandsOK prometheus.Counter
	publish, acknowledge          prometheus.Observer
}

func newMetrics(h *Hub, opts Options) (*prometheus.Registry, *metrics, *collector) {
	reg := prometheus.NewRegistry()
	m := &metrics{made: catalogue{registry: reg}}
	c := &m.made
	m.started = c.counter("sessions_started_total", "Connects accepted.")
	m.established = c.counter("sessions_established_total", "Connect sequences completed.")
	m.resumed = c.counter("sessions_resumed_total", "Sessions that went on after a restart of the server or a loss of the broker.")
	m.silence = c.histogram("session_silence_seconds", "For how long resumed sessions had been out of reach.", peerBuckets)
	m.ended = c.counters("sessions_ended_total", "Sessions and connect sequences that ended. established tells whether the connect sequence had been completed.", "reason", "established")
	m.sequence = c.histogram("connect_sequence_seconds", "Duration of the completed connect sequences.", peerBuckets)
	m.lasted = c.histogram("session_seconds", "Duration of the established sessions that ended.", sessionBuckets)
	m.received = c.counters("messages_received_total", "Readable messages of gateways.", "kind")
	m.sent = c.counters("messages_sent_total", "Messages handed to the link.", "kind")
	m.refused = c.counter("messages_refused_total", "Messages the link did not take, because its queue was full or the broker gone.")
	m.answer = c.histogram("status_answer_seconds", "From the arrival of a status to its answer being handed to the link.", fastBuckets)
	m.firstCommands = c.counter("first_commands_empty_total", "Empty first commands sent in connect sequences.")
	m.unanswered = c.counters("commands_unanswered_total", "Commands of modules without response when their session ended.", "reason")
	m.drops = c.counters("drops_total", "Messages, statuses and commands that were dropped.", "reason")
	m.notes = c.counters("notes_total", "Other observations of sessions.", "note")
	m.forwarded = c.counters("statuses_accepted_total", "Statuses queued for a module; each was or will be answered.", "module")
	m.atRisk = c.counters("statuses_at_risk_total", "Statuses answered although their module had not taken them in time, of modules with \"answer\": \"delivered\".", "module")
	m.handover = c.histograms("status_queue_seconds", "From a status being accepted to the start of forward_status.", fastBuckets, "module")
	m.callTime = c.histograms("module_call_seconds", "Duration of the calls of modules.", fastBuckets, "module", "call")
	m.calls = c.counters("module_calls_total", "Calls of modules. result is ok, error, or lost when what the call carried is lost.", "module", "call", "result")
	m.fetched = c.counters("commands_fetched_total", "Commands taken from modules by their cars.", "module")
	m.commands = c.counters("commands_sent_total", "Commands of modules handed to the link.", "module")
	m.responses = c.counters("commands_answered_total", "Responses of gateways to commands of modules.", "module", "response")
	m.publish = c.histograms("command_publish_seconds", "From the module handing over a command to its publication.", fastBuckets, "module")
	m.acknowledge = c.histograms("command_answer_seconds", "From the publication of a command to its acknowledgement, which waits for those of earlier commands.", peerBuckets, "module")
	m.reloads = c.counters("config_reloads_total", "Reloads of the configuration.", "result")
	for _, n := range session.ContentionNotes() { // an alert compares with what was before the first one
		m.notes.WithLabelValues(string(n))
	}
	for i := range m.receivedKind {
		m.receivedKind[i] = m.received.WithLabelValues(fleet.ClientKind(i).String())
	}
	for kind, name := range map[fleet.ServerKind]string{
		fleet.ServerConnectResponse: "connectResponse", fleet.ServerStatusResponse: "statusResponse", fleet.ServerCommand: "command",
	} {
		m.sentKind[kind] = m.sent.WithLabelValues(name)
	}
	for _, result := range []string{"ok", "failed"} {
		m.reloads.WithLabelValues(result)
	}
	build := c.scraped("build_info", "gauge", "Always 1.", "version", "revision", "goversion")
	revision := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	k := newCollector(h, opts.Sources, c, func(to chan<- prometheus.Metric) {
		build.send(to, 1, opts.Version, revision, runtime.Version())
	})
	reg.MustRegister(k)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg, m, k
}

// Reloaded counts a reload of the configuration and tells about it.
func (h *Hub) Reloaded(text string, err error) {
	result := "ok"
	if err != nil {
		result, text = "failed", err.Error()
	}
	h.metrics.reloads.WithLabelValues(result).Inc()
	h.Events.Put(Event{Kind: KindConfig, Reason: result, Text: text})
}

// FileBroken is called when the configuration file was changed and has an error now.
func (h *Hub) FileBroken(err error) {
	h.Events.Put(Event{Kind: KindConfig, Reason: "file has an error", Text: err.Error()})
}

// module returns the series of a configured module.
func (h *Hub) module(number int32) *moduleMetrics {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.modules[number]; m != nil {
		return m
	}
	m, label := h.metrics, strconv.Itoa(int(number))
	made := &moduleMetrics{
		number:      number,
		forwarded:   m.forwarded.WithLabelValues(label),
		handover:    m.handover.WithLabelValues(label),
		statusTime:  m.callTime.WithLabelValues(label, string(module.CallStatus)),
		statusOK:    m.calls.WithLabelValues(label, string(module.CallStatus), "ok"),
		fetched:     m.fetched.WithLabelValues(label),
		commands:    m.commands.WithLabelValues(label),
		commandsOK:  m.responses.WithLabelValues(label, fleet.ResponseOK.String()),
		publish:     m.publish.WithLabelValues(label),
		acknowledge: m.acknowledge.WithLabelValues(label),
	}
	h.modules[number] = made
	return made
}

// module is Hub.module without its lock for what was asked before.
func (c *Car) module(number int32) *moduleMetrics {
	known := c.modules.Load()
	if known != nil {
		for _, m := range *known {
			if m.number == number {
				return m
			}
		}
	}
	made := c.hub.module(number)
	next := []*moduleMetrics{made}
	if known != nil {
		next = append(next, *known...)
	}
	if len(next) <= 32 { // more than a car has modules
		c.modules.CompareAndSwap(known, &next)
	}
	return made
}

// measure counts and times one event.
func (c *Car) measure(ev *car.Event) {
	m := c.hub.metrics
	switch ev.Kind {
	case car.Received:
		m.receivedKind[ev.In.Kind].Inc()
	case car.Sent:
		if !ev.OK {
			m.refused.Inc()
			return
		}
		m.sentKind[ev.Out.Kind].Inc()
		if ev.Out.Kind == fleet.ServerStatusResponse && !ev.Since.IsZero() {
			m.answer.Observe(ev.At.Sub(ev.Since).Seconds())
		}
	case car.Forwarded:
		c.module(ev.Device.Module).forwarded.Inc()
	case car.Called:
		c.measureCall(ev)
	case car.SessionStarted:
		m.started.Inc()
	case car.SessionRunning:
		m.established.Inc()
		m.sequence.Observe(ev.At.Sub(ev.Since).Seconds())
	case car.SessionResumed:
		m.resumed.Inc()
		m.silence.Observe(ev.Took.Seconds())
	case car.SessionEnded:
		m.ended.WithLabelValues(ev.Reason, strconv.FormatBool(ev.Established)).Inc()
		if ev.Established {
			m.lasted.Observe(ev.At.Sub(ev.Since).Seconds())
		}
		if ev.Count > 0 {
			m.unanswered.WithLabelValues(ev.Reason).Add(float64(ev.Count))
		}
	case car.CommandFetched:
		c.module(ev.Module).fetched.Inc()
	case car.CommandSent:
		if ev.Command.Fetched.IsZero() {
			m.firstCommands.Inc()
			return
		}
		mm := c.module(ev.Module)
		mm.commands.Inc()
		mm.publish.Observe(ev.At.Sub(ev.Command.Fetched).Seconds())
	case car.CommandAnswered:
		if ev.Command.Fetched.IsZero() {
			return
		}
		mm := c.module(ev.Module)
		mm.acknowledge.Observe(ev.At.Sub(ev.Since).Seconds())
		if ev.Response == fleet.ResponseOK {
			mm.commandsOK.Inc()
			return
		}
		m.responses.WithLabelValues(strconv.Itoa(int(ev.Module)), responseLabel(ev.Response)).Inc()
	case car.Dropped:
		m.drops.WithLabelValues(ev.Reason).Add(float64(ev.Count))
	case car.Noted:
		if ev.Reason == string(session.NoteStatusAtRisk) {
			m.atRisk.WithLabelValues(strconv.Itoa(int(ev.Device.Module))).Inc()
		}
		m.notes.WithLabelValues(ev.Reason).Add(float64(ev.Count))
	case car.DeviceConnected, car.DeviceDisconnected, car.Link:
	}
}

// responseLabel bounds what a gateway can put into a label: the enum is open.
func responseLabel(r fleet.ResponseType) string {
	if r < fleet.ResponseOK || r > fleet.ResponseInvalidCommand {
		return "other"
	}
	return r.String()
}

func (c *Car) measureCall(ev *car.Event) {
	m := c.hub.metrics
	mm := c.module(ev.Module)
	if ev.Call == module.CallStatus {
		mm.handover.Observe(ev.Wait.Seconds())
		mm.statusTime.Observe(ev.Took.Seconds())
		if ev.Err == nil {
			mm.statusOK.Inc()
			return
		}
	}
	label, result := strconv.Itoa(int(ev.Module)), "ok"
	switch {
	case errors.Is(ev.Err, module.ErrNotDelivered):
		result = "lost"
	case ev.Err != nil:
		result = "error"
	}
	if ev.Call != module.CallStatus {
		m.callTime.WithLabelValues(label, string(ev.Call)).Observe(ev.Took.Seconds())
	}
	m.calls.WithLabelValues(label, string(ev.Call), result).Inc()
}

// age is how long ago something began, 0 when it has not.
func age(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return max(0, now.Sub(since).Seconds())
}
