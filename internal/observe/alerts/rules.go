package alerts

import (
	"fmt"
	"time"

	"external-server/internal/observe/history"
)

// NeedPrometheus are the rules of the file that one server cannot judge by itself: that it
// does not answer, and what the counters of all replicas say together.
func NeedPrometheus() []string {
	return []string{"ExternalServerDown", "ExternalServerFleetCarsLost", "ExternalServerShardWithTwoOwners", "ExternalServerShardsMove"}
}

// FleetWide tells whether every replica says the same about the cluster.
func FleetWide(name string) bool {
	switch name {
	case "ExternalServerShardWithoutOwner", "ExternalServerReplicaUnhealthy", "ExternalServerReplicaAlone":
		return true
	}
	return false
}

const (
	minute  = time.Minute
	tenMin  = 10 * time.Minute
	quarter = 15 * time.Minute
)

// rules are in the order of the file.
func rules() []rule {
	return []rule{
		{"ExternalServerBrokerConnectionLost", Page, 30 * time.Second, linkDown},
		{"ExternalServerSubscriptionRefused", Page, 30 * time.Second, gauge("link_subscriptions_refused", over(0), func(v float64, _ *history.Series) string {
			return fmt.Sprintf("The MQTT broker refuses %s: nothing of these cars is heard.", plural(v, "subscription"))
		})},
		{"ExternalServerCarsLost", Page, 2 * minute, carsLost},
		{"ExternalServerSessionsFail", Ticket, tenMin, sessionsFail},
		{"ExternalServerConnectSequencesFail", Ticket, tenMin, connectSequencesFail},
		{"ExternalServerCarsContended", Ticket, 0, grown("notes_total", tenMin, []string{"note"}, 0, contended, func(_ float64, s *history.Series) string {
			return "A car may have two gateways or two servers: " + s.Label("note") + "."
		})},
		{"ExternalServerModuleQueueGrows", Page, minute, gauge("module_queue_oldest_seconds", over(10), func(v float64, s *history.Series) string {
			return fmt.Sprintf("A status has waited %s s for module %s; when queues are full, cars get no answers.", number(v), module(s))
		})},
		{"ExternalServerStatusesLost", Page, 0, statusesLost},
		{"ExternalServerStatusesAtRisk", Ticket, 0, grown("statuses_at_risk_total", tenMin, nil, 0, nil, func(v float64, s *history.Series) string {
			return fmt.Sprintf("Statuses answered in ten minutes before module %s had taken them: %s.", module(s), number(v))
		})},
		{"ExternalServerModuleErrors", Ticket, tenMin, moduleErrors},
		{"ExternalServerModuleProcessDown", Page, minute, gauge("module_process_up", is(0), func(_ float64, s *history.Series) string {
			return "The process of module " + module(s) + " has not been ready for a minute."
		})},
		{"ExternalServerModuleProcessRestarts", Ticket, 0, grown("module_process_restarts_total", quarter, nil, 3, nil, func(v float64, s *history.Series) string {
			return fmt.Sprintf("The process of module %s was replaced %s times in 15 minutes.", module(s), number(v))
		})},
		{"ExternalServerModuleOutOfService", Page, 0, gauge("module_process_out_of_service", is(1), func(_ float64, s *history.Series) string {
			return "Module " + module(s) + " is out of service: it failed too often."
		})},
		{"ExternalServerHttpApiUnreachable", Page, 2 * minute, gauge("builtin_api_up", is(0), func(_ float64, s *history.Series) string {
			return "The built-in module " + module(s) + " does not reach the HTTP API; statuses wait."
		})},
		{"ExternalServerMessageStoreFails", Page, minute, gauge("http_api_store_up", is(0), words("The message store of the HTTP API fails."))},
		{"ExternalServerAnswersSlow", Ticket, 5 * minute, answersSlow},
		{"ExternalServerCommandsUnanswered", Ticket, 0, grown("commands_unanswered_total", tenMin, []string{}, 0, nil, func(v float64, _ *history.Series) string {
			return plural(v, "command") + " got no answer of the cars in ten minutes."
		})},
		{"ExternalServerMessagesDropped", Ticket, 0, grown("drops_total", tenMin, []string{"reason"}, 0, dropped, func(v float64, s *history.Series) string {
			return fmt.Sprintf("%s dropped in ten minutes: %s.", were(v, "message"), s.Label("reason"))
		})},
		{"ExternalServerReloadFailed", Ticket, 0, grown("config_reloads_total", quarter, nil, 0, labelled("result", "failed"),
			words("A reload of the configuration failed; the old one is in force."))},
		{"ExternalServerLogLost", Ticket, 0, grown("log_lines_lost_total", quarter, nil, 0, nil, func(v float64, s *history.Series) string {
			return fmt.Sprintf("%s lost (%s): is the disk full?", were(v, "log line"), s.Label("destination"))
		})},
		{"ExternalServerStoppedServing", Page, 0, gauge("link_stopped", is(1), words("The server has stopped serving: another one uses a copy of its state directory."))},
		{"ExternalServerConnectionTakenOver", Ticket, 0, grown("link_taken_over_total", quarter, nil, 0, nil, words("Another server took connections of this one over."))},
		{"ExternalServerSessionsNotKept", Ticket, 5 * minute, gauge("link_sessions_declined", is(1), words("Sessions end with the process although there is a state directory."))},
		{"ExternalServerSessionsDeclined", Ticket, 0, ofProcessBefore("sessions_declined_total", "session", "could not go on")},
		{"ExternalServerJournalsSetAside", Ticket, 0, ofProcessBefore("journals_set_aside_total", "journal", "could not be used")},
		{"ExternalServerJournalFails", Ticket, 0, grown("link_unrecorded_total", quarter, nil, 0, nil, words("A journal could not be written: its sessions will end with the process."))},
		{"ExternalServerShardWithoutOwner", Page, 0, gauge("cluster_shards_without_owner_seconds", over(20), func(v float64, _ *history.Series) string {
			return fmt.Sprintf("Part of the cars has been served by no replica for %s s.", number(v))
		})},
		{"ExternalServerEtcdAway", Page, minute, gauge("cluster_etcd_up", is(0),
			words("This replica does not reach etcd, or is no member: its cars are served, but none would be taken over."))},
		{"ExternalServerReplicaUnhealthy", Ticket, minute, func(w *history.Window) []finding {
			if n := w.Sum(prefix+"cluster_members", labelled("state", "unhealthy")); n > 0 {
				return one(fmt.Sprintf("%s cannot serve and gives its cars away.", plural(n, "replica")))
			}
			return nil
		}},
		{"ExternalServerReplicaAlone", Ticket, tenMin, replicaAlone},
		{"ExternalServerReplicasDiffer", Ticket, tenMin, gauge("cluster_members_differ", over(0), func(v float64, _ *history.Series) string {
			return fmt.Sprintf("The configuration of this replica differs from that of %s.", plural(v, "other one"))
		})},
	}
}

func were(v float64, one string) string {
	if number(v) == "1" {
		return "1 " + one + " was"
	}
	return plural(v, one) + " were"
}

// Metrics are those that the rules look at, a histogram by its own name.
func Metrics() []string {
	out := []string{sessionsEnded, moduleCalls, carsMetric, etcdUp}
	for _, name := range []string{
		"link_up", "link_subscriptions_refused", "sessions_established_total", "sessions_started_total", "notes_total", "module_queue_oldest_seconds",
		"module_statuses_lost_total", "statuses_at_risk_total", "module_process_up", "module_process_restarts_total", "module_process_out_of_service", "builtin_api_up",
		"http_api_store_up", "status_answer_seconds", "commands_unanswered_total", "drops_total", "config_reloads_total", "log_lines_lost_total",
		"link_stopped", "link_taken_over_total", "link_sessions_declined", "sessions_declined_total", "journals_set_aside_total", "uptime_seconds", "link_unrecorded_total",
		"cluster_shards_without_owner_seconds", "cluster_members", "cluster_members_differ",
	} {
		out = append(out, prefix+name)
	}
	return out
}
