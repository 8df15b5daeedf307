package journals

import (
	"errors"
	"maps"
	"strings"
	"time"

	"external-server/internal/config"
	"external-server/internal/journal"
	"external-server/internal/observe"
	"external-server/internal/session/record"
	"external-server/internal/state"
)

// suspectDeaths is how many processes, in a row, have to die soon after they had begun
// to resume for this one to leave out what they have begun with (RES-17).
const suspectDeaths = 2

// suspect leaves out the statuses that have ended the processes before. A status that ends
// the process of the server, in a library that runs in it, is never confirmed: the next
// process begins with it, notes so, and ends; after the first death, they begin with one
// at a time. What as many have begun with as have died
// is not delivered any more; the session of its car goes on.
func (j *Journals) suspect(s *Shard, deaths int, cfg *config.Config) {
	if deaths < suspectDeaths {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, known := range s.known {
		_, name, _ := strings.Cut(id, "/")
		for _, h := range known.Heads() {
			if h.Tried < suspectDeaths || !inProcess(cfg, name, h.Device.Module) {
				continue
			}
			j.opts.Logger.Error("the server died again and again when this status was delivered: it is not delivered any more; run the module with \"isolation\": \"process\", where a status can end nothing but the module",
				"car", name, "module", h.Device.Module, "device", h.Device, "bytes", len(h.Data), "processes", h.Tried)
			s.Append(record.Begin(nil, id).Delivered(h.Device.Module, h.Number))
			known.Drop(h.Device.Module)
			j.lose(endedServer, name, h.Device.Module, 1)
		}
	}
}

// alone lets one at a time hand over a status of the process before, when that one died
// soon: the one with which this process ends as well is the one that is noted.
type alone chan struct{}

// aloneTimeout bounds the wait for another one, whose module may hang.
const aloneTimeout = 2 * time.Second

func (a alone) take() (done func()) {
	late := time.NewTimer(aloneTimeout)
	defer late.Stop()
	select {
	case a <- struct{}{}:
		return func() { <-a }
	case <-late.C:
		return nil
	}
}

// inProcess tells whether the module of the car is a library in the process of the server.
func inProcess(cfg *config.Config, name string, number int32) bool {
	find := func(c *config.Car) bool {
		for i := range c.Modules {
			if m := &c.Modules[i]; m.Number == number {
				return m.Isolation == config.IsolationNone
			}
		}
		return false
	}
	for i := range cfg.Cars {
		if cfg.Cars[i].Name == name {
			return find(&cfg.Cars[i])
		}
	}
	return cfg.AnyCar != nil && find(cfg.AnyCar)
}

// Reasons for which journals are set aside.
const (
	asideDeaths     = "the server died again and again"
	asideUnfinished = "not written to its end"
	asideDamaged    = "damaged"
	asideNewer      = "of a newer version"
	asideForeign    = "of another directory"
)

func asideReason(err error) string {
	switch {
	case errors.Is(err, state.ErrUnfinished):
		return asideUnfinished
	case errors.Is(err, journal.ErrNewer):
		return asideNewer
	case errors.Is(err, journal.ErrForeign):
		return asideForeign
	}
	return asideDamaged
}

// setAside counts journals that were set aside, and tells where they are.
func (j *Journals) setAside(why string, journals int, to string) {
	j.mu.Lock()
	j.aside[why] += journals
	j.mu.Unlock()
	j.opts.Tell(observe.Event{
		Kind: observe.KindFault, Count: journals, Reason: "journals set aside",
		Text: why + ": no session is resumed from " + to,
	})
}

// SetAside counts the journals that were set aside.
func (j *Journals) SetAside() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.aside)
}
