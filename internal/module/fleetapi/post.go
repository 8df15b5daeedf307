package fleetapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// Pauses between attempts of one instance. While a whole host is down its
// breaker decides, so the first limit is short.
const (
	retryMin       = 100 * time.Millisecond
	retryMaxDown   = time.Second
	retryMaxAnswer = 30 * time.Second
	// distinct is the pause that gives a post another timestamp (HTTP-16, DEF-43).
	distinct = 2 * time.Millisecond
)

// start starts a poster if the queue has none.
func (i *Instance) start(wanted bool) {
	if wanted {
		i.posters.Go(i.post)
	}
}

// post empties the queue: window by window, device by device, one request at a
// time (MM-3, MM-60). It ends when the queue is empty or Close has given up.
func (i *Instance) post() {
	for {
		window, err := i.queue.window()
		if err != nil {
			i.limit.Log(i.log, slog.LevelWarn, "the spool cannot be read, trying again",
				slog.String("car", i.car.Car), slog.Any("error", err))
			if sleep(i.posting, spoolRetry) != nil {
				i.queue.posterGaveUp(nil)
				return
			}
			continue
		}
		if len(window) == 0 {
			return
		}
		done := make([]bool, len(window))
		for _, group := range byDevice(window) {
			if !i.deliver(window, group, done) {
				i.queue.posterGaveUp(done)
				return
			}
		}
		i.queue.remove(len(window))
	}
}

// byDevice returns the indexes of each device's entries, devices in the order of
// their first entry. The API's identity counts (HTTP-17).
func byDevice(window []entry) [][]int {
	index := make(map[fleet.DeviceID]int, 4)
	var groups [][]int
	for n := range window {
		id := window[n].device.ID()
		g, ok := index[id]
		if !ok {
			g = len(groups)
			index[id] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], n)
	}
	return groups
}

// deliver posts the entries of one device as one array (HTTP-16). When the API
// refuses the array, each entry is posted alone, so that a bad one costs only
// itself. false means that Close has given up.
func (i *Instance) deliver(window []entry, group []int, done []bool) bool {
	messages := make([]httpapi.Message, len(group))
	for n, at := range group {
		messages[n] = window[at].message()
	}
	refusal, ok := i.insist(messages)
	if !ok {
		return false
	}
	if refusal == nil {
		i.counters.posted.Add(uint64(len(group)))
		for _, at := range group {
			done[at] = true
		}
		return true
	}
	for n, at := range group {
		for attempt := 0; ; attempt++ {
			if sleep(i.posting, distinct) != nil {
				return false
			}
			i.counters.retries.Add(1)
			refusal, ok := i.insist(messages[n : n+1])
			if !ok {
				return false
			}
			if refusal == nil {
				i.counters.posted.Add(1)
				break
			}
			if len(group) == 1 || attempt == 1 { // DEF-43: refused twice
				i.counters.refused.Add(1)
				i.limit.Log(i.log, slog.LevelWarn, "the HTTP API refuses a status, it is lost",
					slog.String("car", i.car.Car), slog.String("device", window[at].device.String()),
					slog.String("type", messages[n].Payload.MessageType), slog.Any("error", refusal))
				break
			}
		}
		done[at] = true
	}
	return true
}

// insist posts until the API has decided: stored, or refused for what the
// messages are. Everything else is tried again with a growing pause, because
// what was answered to the car is to be delivered.
func (i *Instance) insist(messages []httpapi.Message) (refusal error, ok bool) {
	pause := retryMin
	for {
		err := i.attempt(messages)
		if i.posting.Err() != nil && err != nil {
			return nil, false
		}
		longest := retryMaxAnswer
		switch code := httpapi.StatusOf(err); {
		case err == nil:
			return nil, true
		case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
			return err, true
		case unavailable(err) != nil: // the breaker says so
			longest = retryMaxDown
		default:
			i.host.complain("statuses", err)
		}
		i.counters.retries.Add(1)
		if sleep(i.posting, jitter(min(pause, longest))) != nil {
			return nil, false
		}
		pause = min(2*pause, longest)
	}
}

// attempt makes one request when the host takes one.
func (i *Instance) attempt(messages []httpapi.Message) error {
	select {
	case i.host.posts <- struct{}{}:
	case <-i.posting.Done():
		return i.posting.Err()
	}
	defer func() { <-i.host.posts }()
	probe, err := i.host.posting.admit(i.posting)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(i.posting, requestTimeout)
	defer cancel()
	err = i.api.PostStatuses(ctx, i.car, messages)
	i.host.posting.report(probe, i.posting.Err() != nil, unavailable(err))
	return err
}
