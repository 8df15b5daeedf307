package broker

import "sync/atomic"

// Stats are counters since the start and the present state.
type Stats struct {
	Clients, Subscriptions              int
	MessagesIn, MessagesOut             uint64 // published by clients, delivered to them
	BytesIn, BytesOut                   uint64
	MessagesDropped, InFlight, Retained uint64
	KeptSessions                        int // with or without their client
}

// Stats may be called from any goroutine, after Start.
func (b *Broker) Stats() Stats {
	i := b.server.Info
	count := func(n *int64) uint64 { return uint64(max(0, atomic.LoadInt64(n))) }
	return Stats{
		Clients:         int(count(&i.ClientsConnected)),
		Subscriptions:   int(count(&i.Subscriptions)),
		MessagesIn:      count(&i.MessagesReceived),
		MessagesOut:     count(&i.MessagesSent),
		BytesIn:         count(&i.BytesReceived),
		BytesOut:        count(&i.BytesSent),
		MessagesDropped: count(&i.MessagesDropped),
		InFlight:        count(&i.Inflight),
		Retained:        uint64(b.retained.len()),
		KeptSessions:    b.sessions.len(),
	}
}
