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
	"external-server/internal/session"
)

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// StateOf names the state of a car in metrics and in the admin interface.
func StateOf(p session.Phase) string {
	switch p {
	case session.PhaseWaiting:
		return stateNames[stateWaiting]
	case session.PhaseRunning:
		return stateNames[stateRunning]
	}
	return stateNames[stateConnecting]
}

func (k *collector) collectCars(to chan<- prometheus.Metric, now time.Time, cars []car.Snapshot) {
	for i := range cars {
		c := &cars[i]
		name, is := c.ID.Car, StateOf(c.Phase)
		for _, state := range stateNames {
			k.carState.send(to, number(state == is), name, state)
		}
		k.carStatuses.send(to, float64(c.Statuses), name)
		k.carSessions.send(to, float64(c.Sessions), name)
		if !c.LastSeen.IsZero() {
			k.carSeen.send(to, age(now, c.LastSeen), name)
		}
	}
}

func (k *collector) collectLink(to chan<- prometheus.Metric, now time.Time, s link.State) {
	k.linkUp.send(to, number(s.Up))
	k.linkChanged.send(to, age(now, s.Since))
	var sum link.ConnectionState
	up := 0
	for i := range s.Connections {
		c := &s.Connections[i]
		if c.Up {
			up++
		}
		sum.Connects += c.Connects
		sum.MessagesIn += c.MessagesIn
		sum.MessagesOut += c.MessagesOut
		sum.BytesIn += c.BytesIn
		sum.BytesOut += c.BytesOut
		sum.InFlight += c.InFlight
		sum.Queued += c.Queued
		sum.SubscriptionsRefused += c.SubscriptionsRefused
		sum.DroppedQueueFull += c.DroppedQueueFull
		sum.DroppedLinkDown += c.DroppedLinkDown
		sum.DroppedDiscarded += c.DroppedDiscarded
		sum.DroppedTooLarge += c.DroppedTooLarge
		sum.IgnoredOversized += c.IgnoredOversized
		sum.IgnoredForeign += c.IgnoredForeign
		sum.IgnoredBadName += c.IgnoredBadName
		sum.IgnoredRetained += c.IgnoredRetained
		sum.IgnoredRepeatedForeign += c.IgnoredRepeatedForeign
	}
	k.collectSessions(to, s)
	k.linkConnections.send(to, float64(up), "up")
	k.linkConnections.send(to, float64(len(s.Connections)-up), "down")
	k.linkConnects.send(to, float64(sum.Connects))
	k.linkMessages.send(to, float64(sum.MessagesIn), "in")
	k.linkMessages.send(to, float64(sum.MessagesOut), "out")
	k.linkBytes.send(to, float64(sum.BytesIn), "in")
	k.linkBytes.send(to, float64(sum.BytesOut), "out")
	k.linkInFlight.send(to, float64(sum.InFlight))
	k.linkQueued.send(to, float64(sum.Queued))
	k.linkDeaf.send(to, float64(s.Refused))
	k.linkRefused.send(to, float64(sum.SubscriptionsRefused))
	k.linkDropped.send(to, float64(sum.DroppedQueueFull), "queue full")
	k.linkDropped.send(to, float64(sum.DroppedLinkDown), "broker gone")
	k.linkDropped.send(to, float64(sum.DroppedDiscarded), "session ended")
	k.linkDropped.send(to, float64(sum.DroppedTooLarge), "too large")
	k.linkIgnored.send(to, float64(sum.IgnoredOversized), "too large")
	k.linkIgnored.send(to, float64(sum.IgnoredForeign), "unknown car")
	k.linkIgnored.send(to, float64(sum.IgnoredBadName), "bad name")
	k.linkIgnored.send(to, float64(sum.IgnoredRetained), "retained")
	k.linkIgnored.send(to, float64(sum.IgnoredRepeatedForeign), "second copy")
}

// collectSessions are the sessions that the broker keeps.
func (k *collector) collectSessions(to chan<- prometheus.Metric, s link.State) {
	sum := s.Sessions()
	k.linkKept.send(to, float64(sum.Kept))
	k.linkDeclined.send(to, number(s.Declined != ""))
	k.linkStopped.send(to, number(s.Stopped != ""))
	k.linkResumed.send(to, float64(sum.Resumed))
	k.linkBacklog.send(to, float64(sum.Backlog))
	k.linkRedelivered.send(to, float64(sum.Redelivered))
	k.linkEndUnknown.send(to, float64(sum.EndUnknown))
	k.linkLeftovers.send(to, float64(sum.Leftovers))
	k.linkTakenOver.send(to, float64(sum.TakenOver))
	k.linkUnrecorded.send(to, float64(sum.Unrecorded))
	k.linkBrokerRefused.send(to, float64(sum.Refused))
}

func (k *collector) collectProcess(to chan<- prometheus.Metric, p module.ProcessState) {
	n := strconv.Itoa(int(p.Number))
	k.processUp.send(to, number(p.Ready), n, p.Name)
	k.processRestarts.send(to, float64(p.Restarts), n, p.Name)
	k.processMemory.send(to, float64(p.RSS), n, p.Name)
	k.processContexts.send(to, float64(p.Contexts), n, p.Name)
	k.processOut.send(to, number(p.OutOfService), n, p.Name)
	k.processRedeliver.send(to, float64(p.Redelivered), n, p.Name)
	k.processCommandsLost.send(to, float64(p.CommandsLost), n, p.Name)
}

func (k *collector) collectBroker(to chan<- prometheus.Metric, s broker.Stats) {
	k.brokerClients.send(to, float64(s.Clients))
	k.brokerSubscriptions.send(to, float64(s.Subscriptions))
	k.brokerMessages.send(to, float64(s.MessagesIn), "in")
	k.brokerMessages.send(to, float64(s.MessagesOut), "out")
	k.brokerBytes.send(to, float64(s.BytesIn), "in")
	k.brokerBytes.send(to, float64(s.BytesOut), "out")
	k.brokerDropped.send(to, float64(s.MessagesDropped))
}

func (k *collector) collectAPI(to chan<- prometheus.Metric, s server.Stats) {
	for key, n := range s.Requests {
		k.httpRequests.send(to, float64(n), key.Route, strconv.Itoa(key.Code))
	}
	k.httpCars.send(to, float64(s.Cars))
	k.httpDevices.send(to, float64(s.Devices))
	k.httpWaiting.send(to, float64(s.Waiting))
	if s.Cluster {
		k.httpHeld.send(to, float64(s.Held))
		k.httpShards.send(to, float64(s.Shards))
		k.httpPassedOn.send(to, float64(s.PassedOn))
		k.httpForOthers.send(to, float64(s.ForOthers))
	}
	k.httpQueue.send(to, float64(s.Queue))
	k.httpMessages.send(to, float64(s.Messages))
	k.httpDeleted.send(to, float64(s.Deleted))
	k.httpTransactions.send(to, float64(s.Transactions-s.FailedTransactions), "ok")
	k.httpTransactions.send(to, float64(s.FailedTransactions), "failed")
	k.httpWrite.send(to, s.WriteTime.Seconds())
	k.httpSlowest.send(to, s.SlowestWrite.Seconds())
	for fault, n := range s.StoreFaults {
		k.httpFaults.send(to, float64(n), string(fault))
	}
	k.httpStoreBytes.send(to, float64(s.StoreBytes), "data")
	k.httpStoreBytes.send(to, float64(s.LogBytes), "log")
	k.httpStoreUp.send(to, number(s.StoreFault == ""))
}
