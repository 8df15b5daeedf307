package app

import (
	"slices"
	"strings"

	"external-server/internal/session"
)

// suspectDeaths is how many processes, in a row, have to die soon after they had begun
// to resume for this one to leave out what they have begun with (RES-17).
const suspectDeaths = 2

// suspect looks for what has ended the processes before. A status that ends the process
// of the server, in a library that runs in it, is never confirmed, so it is what the
// next process begins with, and ends by. What several in a row have begun with is not
// delivered any more; the sessions go on.
//
// Every start notes in the journals what it is going to begin with.
func (p *sessionsPart) suspect(deaths int) {
	heads := make(map[string][]session.Left)
	for id, known := range p.known {
		for _, h := range known.Heads() {
			heads[id] = append(heads[id], *h)
		}
	}
	if deaths >= suspectDeaths {
		p.blame(deaths, heads)
	}
	for id, known := range p.known {
		shard := p.shardOf(id)
		for _, h := range known.Heads() {
			shard.Append(session.AppendTried(nil, id, h.Device.Module, h.Number))
		}
	}
	for _, s := range p.shards {
		_ = s.Flush() // told by OnFault
	}
}

// blame drops the statuses that several processes have begun with, or, when there is none
// and one more has died, all that modules would begin with.
func (p *sessionsPart) blame(deaths int, heads map[string][]session.Left) {
	every := deaths > suspectDeaths
	for _, of := range heads {
		every = every && !slices.ContainsFunc(of, tried)
	}
	for id, of := range heads {
		_, name, _ := strings.Cut(id, "/")
		for _, h := range of {
			if !every && !tried(h) {
				continue
			}
			p.log.Error("the server died again and again after it had begun with this status: it is not delivered any more; run the module with \"isolation\": \"process\", where a status can end nothing but the module",
				"car", name, "module", h.Device.Module, "device", h.Device, "bytes", len(h.Data), "deaths", deaths)
			p.known[id].Drop(h.Device.Module)
			p.shardOf(id).Append(session.AppendDelivered(nil, id, h.Device.Module, h.Number))
			p.dropped++
		}
	}
}

func tried(l session.Left) bool { return l.Tried >= suspectDeaths }
