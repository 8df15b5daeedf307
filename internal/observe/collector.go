package observe

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"external-server/internal/broker"
	"external-server/internal/car"
	"external-server/internal/httpapi/server"
	"external-server/internal/link"
	"external-server/internal/module"
	"external-server/internal/module/fleetapi"
)

// Sources are asked at every scrape. A nil one has nothing to tell.
type Sources struct {
	Cars      func() []car.Snapshot
	Link      func() link.State
	Processes func() []module.ProcessState
	Broker    func() (broker.Stats, bool)
	HTTPAPI   func() (server.Stats, bool)
	LogLost   func() (console, file uint64)
	// Stores are the places on disk that the server writes to.
	Stores func() []Store
	// Declined counts the sessions of the process before that could not go on, by reason.
	Declined func() map[string]int
	// Cluster says what this replica knows of its cluster; false: there is none, or nothing
	// is known yet.
	Cluster func() (ClusterState, bool)
	// GivenUp counts the answered statuses of the process before that are not delivered, by
	// reason.
	GivenUp func() map[string]int
	// SetAside counts the journals of sessions that were set aside, by reason.
	SetAside func() map[string]int
}

// Store is a place on disk that the server writes to.
type Store struct {
	Name  string
	Fault string // why it cannot be written to, "" when it can
}

// collector turns the sources into metrics.
type collector struct {
	hub     *Hub
	sources Sources
	always  func(chan<- prometheus.Metric)

	uptime, cars                                                                                                                              scraped
	queue, queueLongest, queueAge, statusesLost, acksDropped, commandsDiscarded, moduleCars                                                   scraped
	posts, postsWaiting, postsSpooled, postBytes, postAge, postsRetried, spoolFaults, apiUp                                                   scraped
	apiCommands                                                                                                                               scraped
	linkUp, linkChanged, linkConnections, linkConnects, linkMessages, linkBytes, linkQueued                                                   scraped
	linkInFlight, linkDropped, linkIgnored, linkRefused, linkDeaf                                                                             scraped
	linkKept, linkResumed, linkBacklog, linkRedelivered, linkEndUnknown, linkLeftovers                                                        scraped
	linkTakenOver, linkUnrecorded, linkBrokerRefused, linkStopped, linkDeclined                                                               scraped
	processUp, processRestarts, processMemory, processContexts, processOut, processRedeliver                                                  scraped
	processCommandsLost                                                                                                                       scraped
	brokerClients, brokerSubscriptions, brokerMessages, brokerBytes, brokerDropped                                                            scraped
	httpRequests, httpCars, httpDevices, httpWaiting, httpHeld, httpShards, httpPassedOn, httpForOthers, httpQueue, httpMessages, httpDeleted scraped
	httpTransactions, httpWrite, httpSlowest, httpFaults, httpStoreUp, httpStoreBytes                                                         scraped
	logLost, eventsTotal, declined, givenUp, setAside                                                                                         scraped
	carState, carStatuses, carSessions, carSeen                                                                                               scraped
	cluster                                                                                                                                   clusterMetrics
}

func newCollector(h *Hub, s Sources, c *catalogue, always func(chan<- prometheus.Metric)) *collector {
	k := &collector{hub: h, sources: s, always: always}
	k.uptime = c.scraped("uptime_seconds", "gauge", "Time since the start.")
	k.cars = c.scraped("cars", "gauge", "Cars that are served, by state: waiting (no session), connecting (connect sequence), running.", "state")
	k.declined = c.scraped("sessions_declined_total", "counter", "Sessions of the process before that could not go on, by reason. Those that the broker did not keep count as ended.", "reason")
	k.eventsTotal = c.scraped("events_total", "counter", "Entries of the event stream.")

	k.moduleCars = c.scraped("module_cars", "gauge", "Cars that have the module.", "module")
	k.queue = c.scraped("module_queue_length", "gauge", "Calls that wait for the module, of all cars, those under way included.", "module")
	k.queueLongest = c.scraped("module_queue_longest", "gauge", "Calls that wait for the module, of the car with the most.", "module")
	k.queueAge = c.scraped("module_queue_oldest_seconds", "gauge", "Age of the oldest call that waits for the module.", "module")
	k.statusesLost = c.scraped("module_statuses_lost_total", "counter", "Answered statuses that were not delivered for certain. Starts anew for a car that is changed by a reload.", "module")
	k.acksDropped = c.scraped("module_acks_dropped_total", "counter", "Acknowledgements of commands that found the module's queue full.", "module")
	k.commandsDiscarded = c.scraped("module_commands_discarded_total", "counter", "Commands discarded before the car took them.", "module")

	k.apiUp = c.scraped("builtin_api_up", "gauge", "1 when the HTTP API answers every car's built-in module.", "module")
	k.posts = c.scraped("builtin_posts_total", "counter", "Statuses of built-in modules by what became of them: posted, refused, lost, invalid.", "module", "result")
	k.postsRetried = c.scraped("builtin_retries_total", "counter", "Posts that failed and were made again.", "module")
	k.postsWaiting = c.scraped("builtin_queue_length", "gauge", "Statuses that wait for the HTTP API, those on disk included.", "module")
	k.postsSpooled = c.scraped("builtin_queue_spooled", "gauge", "Statuses that wait for the HTTP API on disk.", "module")
	k.postBytes = c.scraped("builtin_queue_bytes", "gauge", "Bytes of the statuses that wait for the HTTP API.", "module")
	k.postAge = c.scraped("builtin_queue_oldest_seconds", "gauge", "Age of the oldest status that waits for the HTTP API.", "module")
	k.spoolFaults = c.scraped("builtin_spool_faults_total", "counter", "Statuses kept in memory because the spool failed, and damaged places found in it.", "module")
	k.apiCommands = c.scraped("builtin_commands_total", "counter", "Commands of the HTTP API: delivered, invalid, flushed (older than the start).", "module", "result")

	k.linkUp = c.scraped("link_up", "gauge", "1 when every broker connection is made and its subscriptions are restored and granted.")
	k.linkChanged = c.scraped("link_state_seconds", "gauge", "Time since a connection to the broker was last made or lost.")
	k.linkConnections = c.scraped("link_connections", "gauge", "Connections to the broker.", "state")
	k.linkConnects = c.scraped("link_connects_total", "counter", "Successful connects to the broker.")
	k.linkMessages = c.scraped("link_messages_total", "counter", "Messages received from and sent to the broker.", "direction")
	k.linkBytes = c.scraped("link_bytes_total", "counter", "Payload bytes received from and sent to the broker.", "direction")
	k.linkQueued = c.scraped("link_queued", "gauge", "Messages that wait to be sent.")
	k.linkInFlight = c.scraped("link_in_flight", "gauge", "Messages the broker has not acknowledged.")
	k.linkDropped = c.scraped("link_dropped_total", "counter", "Outgoing messages that were not sent.", "reason")
	k.linkIgnored = c.scraped("link_ignored_total", "counter", "Incoming messages that no car was given.", "reason")
	k.linkRefused = c.scraped("link_subscriptions_refused_total", "counter", "Subscriptions the broker refused.")
	k.linkKept = c.scraped("link_sessions_kept", "gauge", "Connections whose session the broker keeps when they are lost.")
	k.givenUp = c.scraped("statuses_given_up_total", "counter", "Answered statuses of the process before that are not delivered, by reason.", "reason")
	k.setAside = c.scraped("journals_set_aside_total", "counter", "Journals of the process before that no session is resumed from, by reason.", "reason")
	k.linkDeclined = c.scraped("link_sessions_declined", "gauge", "1 when sessions are not kept although there is a state directory.")
	k.linkStopped = c.scraped("link_stopped", "gauge", "1 when the server has stopped serving because another one has its sessions.")
	k.linkResumed = c.scraped("link_sessions_resumed_total", "counter", "Connections to the broker whose session went on.")
	k.linkBacklog = c.scraped("link_backlog_messages_total", "counter", "Messages that the broker had kept.")
	k.linkRedelivered = c.scraped("link_redelivered_total", "counter", "Messages that the broker sent once more.")
	k.linkEndUnknown = c.scraped("link_backlog_end_unknown_total", "counter", "Times that the end of what the broker had kept could not be told.")
	k.linkLeftovers = c.scraped("link_leftovers_total", "counter", "Cars that a kept session knew and the configuration does not.")
	k.linkTakenOver = c.scraped("link_taken_over_total", "counter", "Times that another server took a connection over.")
	k.linkUnrecorded = c.scraped("link_unrecorded_total", "counter", "Writes to the broker before which the journal could not be written.")
	k.linkBrokerRefused = c.scraped("link_messages_refused_total", "counter", "Messages that the broker refused.")
	k.linkDeaf = c.scraped("link_subscriptions_refused", "gauge", "Cars, and watched companies, whose subscription the broker refuses now.")

	k.processUp = c.scraped("module_process_up", "gauge", "1 when the process of the module answers and has all contexts.", "module", "name")
	k.processRestarts = c.scraped("module_process_restarts_total", "counter", "Processes of the module that were replaced.", "module", "name")
	k.processMemory = c.scraped("module_process_resident_bytes", "gauge", "Resident memory of the process.", "module", "name")
	k.processContexts = c.scraped("module_process_contexts", "gauge", "Contexts (cars) in the process.", "module", "name")
	k.processOut = c.scraped("module_process_out_of_service", "gauge", "1 when the process failed too often and is not started any more.", "module", "name")
	k.processRedeliver = c.scraped("module_process_redelivered_total", "counter", "Calls handed over again to a new process.", "module", "name")
	k.processCommandsLost = c.scraped("module_process_commands_lost_total", "counter", "Commands that went down with a process.", "module", "name")

	k.brokerClients = c.scraped("broker_clients", "gauge", "Clients of the embedded broker.")
	k.brokerSubscriptions = c.scraped("broker_subscriptions", "gauge", "Subscriptions of the embedded broker.")
	k.brokerMessages = c.scraped("broker_messages_total", "counter", "Messages of the embedded broker.", "direction")
	k.brokerBytes = c.scraped("broker_bytes_total", "counter", "Bytes of the embedded broker.", "direction")
	k.brokerDropped = c.scraped("broker_dropped_total", "counter", "Messages the embedded broker dropped because a client was too slow.")

	k.httpRequests = c.scraped("http_api_requests_total", "counter", "Requests of the embedded HTTP API.", "route", "code")
	k.httpCars = c.scraped("http_api_cars", "gauge", "Cars known to the embedded HTTP API.")
	k.httpDevices = c.scraped("http_api_devices", "gauge", "Devices known to the embedded HTTP API.")
	k.httpWaiting = c.scraped("http_api_waiting", "gauge", "Requests held by wait=true.")
	k.httpHeld = c.scraped("http_api_held", "gauge", "In a cluster: requests of own clients that are being answered, or wait for an owner of their car or its answer.")
	k.httpShards = c.scraped("http_api_shards", "gauge", "In a cluster: shards whose requests are answered here.")
	k.httpPassedOn = c.scraped("http_api_passed_on_total", "counter", "In a cluster: requests of own clients that another replica has answered.")
	k.httpForOthers = c.scraped("http_api_for_others_total", "counter", "In a cluster: requests answered for other replicas, which count them as theirs.")
	k.httpQueue = c.scraped("http_api_queue", "gauge", "Posts that wait for the message store.")
	k.httpMessages = c.scraped("http_api_messages_total", "counter", "Messages stored.")
	k.httpDeleted = c.scraped("http_api_messages_deleted_total", "counter", "Messages deleted by retention.")
	k.httpTransactions = c.scraped("http_api_transactions_total", "counter", "Transactions of the message store.", "result")
	k.httpWrite = c.scraped("http_api_write_seconds_total", "counter", "Time spent in transactions of the message store.")
	k.httpSlowest = c.scraped("http_api_write_slowest_seconds", "gauge", "Duration of the slowest transaction of the message store since the start.")
	k.httpFaults = c.scraped("http_api_store_faults_total", "counter", "Failed operations of the message store.", "fault")
	k.httpStoreBytes = c.scraped("http_api_store_bytes", "gauge", "Size of the message store and of its write-ahead log (SQLite), as of the last sweep of retention.", "part")
	k.httpStoreUp = c.scraped("http_api_store_up", "gauge", "0 while the message store fails.")

	k.logLost = c.scraped("log_lines_lost_total", "counter", "Log lines that could not be written.", "destination")

	k.cluster = newClusterMetrics(c)

	k.carState = c.scraped("car_state", "gauge", "1 for the state the car is in. Only with admin.per_car_metrics, as everything about single cars.", "car", "state")
	k.carStatuses = c.scraped("car_statuses_total", "counter", "Statuses of the car queued for modules.", "car")
	k.carSessions = c.scraped("car_sessions_total", "counter", "Connect sequences the car has completed.", "car")
	k.carSeen = c.scraped("car_last_message_seconds", "gauge", "Time since the last message of the car's gateway.", "car")
	return k
}

// Describe says nothing: which series there are depends on the configuration.
func (k *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (k *collector) Collect(to chan<- prometheus.Metric) { k.collect(to, k.hub.perCar.Load()) }

// collect asks the sources; perCar: also for the series of single cars.
func (k *collector) collect(to chan<- prometheus.Metric, perCar bool) {
	now := time.Now()
	k.always(to)
	k.uptime.send(to, now.Sub(k.hub.Started).Seconds())
	for i, name := range stateNames {
		k.cars.send(to, float64(k.hub.states[i].Load()), name)
	}
	k.eventsTotal.send(to, float64(k.hub.Events.ring.Next()-1))
	if k.sources.Declined != nil {
		for reason, n := range k.sources.Declined() {
			k.declined.send(to, float64(n), reason)
		}
	}
	if k.sources.GivenUp != nil {
		for reason, n := range k.sources.GivenUp() {
			k.givenUp.send(to, float64(n), reason)
		}
	}
	if k.sources.SetAside != nil {
		for reason, n := range k.sources.SetAside() {
			k.setAside.send(to, float64(n), reason)
		}
	}
	if k.sources.Cars != nil {
		cars := k.sources.Cars()
		k.collectModules(to, now, cars)
		if perCar {
			k.collectCars(to, now, cars)
		}
	}
	if k.sources.Link != nil {
		k.collectLink(to, now, k.sources.Link())
	}
	if k.sources.Processes != nil {
		for _, p := range k.sources.Processes() {
			k.collectProcess(to, p)
		}
	}
	if k.sources.Broker != nil {
		if s, ok := k.sources.Broker(); ok {
			k.collectBroker(to, s)
		}
	}
	if k.sources.HTTPAPI != nil {
		if s, ok := k.sources.HTTPAPI(); ok {
			k.collectAPI(to, s)
		}
	}
	if k.sources.Cluster != nil {
		if s, ok := k.sources.Cluster(); ok {
			k.cluster.send(to, now, s)
		}
	}
	if k.sources.LogLost != nil {
		console, file := k.sources.LogLost()
		k.logLost.send(to, float64(console), "console")
		k.logLost.send(to, float64(file), "file")
	}
}

// ModuleSum adds up one module over all cars.
type ModuleSum struct {
	Number, Cars    int
	Queued, Longest int
	Oldest          time.Time // zero: nothing waits
	Statuses, Errors, Lost, AcksDropped,
	CommandsFetched, CommandsDiscarded uint64
	API *APISum // of a built-in module
}

// APISum adds up what the instances of a built-in module say.
type APISum struct {
	Up bool
	fleetapi.Stats
}

// SumModules adds up the modules of the cars, in the order of first appearance.
func SumModules(cars []car.Snapshot) []*ModuleSum {
	var out []*ModuleSum
	index := make(map[int32]*ModuleSum)
	for i := range cars {
		for _, m := range cars[i].Modules {
			s := index[m.Number]
			if s == nil {
				s = &ModuleSum{Number: int(m.Number)}
				index[m.Number] = s
				out = append(out, s)
			}
			s.Cars++
			s.Queued += m.Queued
			s.Longest = max(s.Longest, m.Queued)
			s.Oldest = older(s.Oldest, m.OldestQueued)
			s.Statuses += m.Statuses
			s.Errors += m.Errors
			s.Lost += m.Lost
			s.AcksDropped += m.AcksDropped
			s.CommandsFetched += m.CommandsFetched
			s.CommandsDiscarded += m.CommandsDiscarded
			if b, ok := module.Opened(m.Instance).(interface{ Stats() fleetapi.Stats }); ok {
				s.addAPI(b.Stats())
			}
		}
	}
	return out
}

func older(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (s *ModuleSum) addAPI(b fleetapi.Stats) {
	if s.API == nil {
		s.API = &APISum{Up: true}
	}
	a := s.API
	a.Up = a.Up && b.APIUp
	a.Queued += b.Queued
	a.Spooled += b.Spooled
	a.QueuedBytes += b.QueuedBytes
	a.OldestQueued = older(a.OldestQueued, b.OldestQueued)
	a.Posted += b.Posted
	a.Refused += b.Refused
	a.Stats.Lost += b.Lost
	a.Invalid += b.Invalid
	a.Retries += b.Retries
	a.SpoolFailures += b.SpoolFailures
	a.SpoolDamaged += b.SpoolDamaged
	a.Commands += b.Commands
	a.CommandsInvalid += b.CommandsInvalid
	a.CommandsFlushed += b.CommandsFlushed
}

func (k *collector) collectModules(to chan<- prometheus.Metric, now time.Time, cars []car.Snapshot) {
	for _, s := range SumModules(cars) {
		n := strconv.Itoa(s.Number)
		k.moduleCars.send(to, float64(s.Cars), n)
		k.queue.send(to, float64(s.Queued), n)
		k.queueLongest.send(to, float64(s.Longest), n)
		k.queueAge.send(to, age(now, s.Oldest), n)
		k.statusesLost.send(to, float64(s.Lost), n)
		k.acksDropped.send(to, float64(s.AcksDropped), n)
		k.commandsDiscarded.send(to, float64(s.CommandsDiscarded), n)
		a := s.API
		if a == nil {
			continue
		}
		k.apiUp.send(to, number(a.Up), n)
		k.posts.send(to, float64(a.Posted), n, "posted")
		k.posts.send(to, float64(a.Refused), n, "refused")
		k.posts.send(to, float64(a.Stats.Lost), n, "lost")
		k.posts.send(to, float64(a.Invalid), n, "invalid")
		k.postsRetried.send(to, float64(a.Retries), n)
		k.postsWaiting.send(to, float64(a.Queued), n)
		k.postsSpooled.send(to, float64(a.Spooled), n)
		k.postBytes.send(to, float64(a.QueuedBytes), n)
		k.postAge.send(to, age(now, a.OldestQueued), n)
		k.spoolFaults.send(to, float64(a.SpoolFailures+a.SpoolDamaged), n)
		k.apiCommands.send(to, float64(a.Commands), n, "delivered")
		k.apiCommands.send(to, float64(a.CommandsInvalid), n, "invalid")
		k.apiCommands.send(to, float64(a.CommandsFlushed), n, "flushed")
	}
}
