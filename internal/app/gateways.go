package app

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
)

// gatewayGrace is how long a gateway whose connection to the embedded broker has
// closed may take to come back. It connects anew after about 1 s by itself and goes on
// with its session (GW-55); it is subscribed then, see gatewayTopics.
const gatewayGrace = 5 * time.Second

// maxLeft bounds the gateways that are awaited.
const maxLeft = 20_000

// isGateway tells whether a client identifier is that of a gateway, company/car
// (CONN-9).
func isGateway(client string) bool {
	company, car, ok := strings.Cut(client, "/")
	return ok && fleet.ValidName(company) && fleet.ValidName(car)
}

// gatewayTopics are the topics that a gateway subscribes. One whose connection was cut
// connects again and does not subscribe (GW-55).
func gatewayTopics(client string) []string {
	if !isGateway(client) {
		return nil
	}
	return []string{client + fleet.TopicFromServer, client + fleet.TopicDisconnect}
}

// gateways are those that have left the embedded broker. Without it, or when the
// server uses another broker, there are none.
type gateways struct {
	ours atomic.Bool // the server is connected to the embedded broker

	mu   sync.Mutex
	left map[string]time.Time // by client identifier
	wake chan struct{}        // capacity 1
}

func newGateways() *gateways {
	return &gateways{left: make(map[string]time.Time), wake: make(chan struct{}, 1)}
}

// present is told by the broker who comes and who goes.
func (g *gateways) present(client string, here bool) {
	if !g.ours.Load() || !isGateway(client) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if here {
		delete(g.left, client)
		return
	}
	if len(g.left) >= maxLeft { // strangers: a fleet is smaller, and ends by its timeout
		return
	}
	g.left[client] = time.Now()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// watch calls gone for each gateway that has left and not come back, until ctx ends.
func (g *gateways) watch(ctx context.Context, gone func(client string, left time.Time)) {
	for {
		wait := time.Hour
		for client, left := range g.due(time.Now(), &wait) {
			gone(client, left)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-g.wake:
			timer.Stop()
		}
	}
}

// due removes the gateways whose time is over; wait becomes the time until the next.
func (g *gateways) due(now time.Time, wait *time.Duration) map[string]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	over := make(map[string]time.Time)
	for client, left := range g.left {
		if rest := gatewayGrace - now.Sub(left); rest > 0 {
			*wait = min(*wait, rest)
			continue
		}
		over[client] = left
		delete(g.left, client)
	}
	return over
}

// gatewayGone ends the session of a car whose gateway has left the broker, unless the
// gateway was heard since: it has another way then, a bridge for example.
func (a *App) gatewayGone(client string, left time.Time) {
	company, name, _ := strings.Cut(client, "/")
	if company != a.Config().Company {
		return
	}
	c, ok := a.roster.Find(name)
	if !ok || c.Snapshot().LastSeen.After(left.Add(gatewayGrace/5)) { // what was under way comes within that
		return
	}
	c.GatewayGone()
}
