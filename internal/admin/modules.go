package admin

import (
	"net/http"
	"time"

	"external-server/internal/observe"
)

// moduleJSON is one module in the answer of /api/v1/modules.
type moduleJSON struct {
	Number            int          `json:"number"`
	Kind              string       `json:"kind"`
	Name              string       `json:"name"`
	Cars              int          `json:"cars"`
	Queued            int          `json:"queued"`
	QueuedLongest     int          `json:"queued_longest"` // of one car
	OldestSeconds     float64      `json:"oldest_seconds"`
	Statuses          uint64       `json:"statuses"`
	Errors            uint64       `json:"errors"`
	Lost              uint64       `json:"lost"`
	CommandsFetched   uint64       `json:"commands_fetched"`
	CommandsDiscarded uint64       `json:"commands_discarded"`
	Process           *processJSON `json:"process,omitempty"`
	API               *apiJSON     `json:"api,omitempty"`
}

type processJSON struct {
	PID           int        `json:"pid"`
	Ready         bool       `json:"ready"`
	OutOfService  bool       `json:"out_of_service"`
	Since         *time.Time `json:"since,omitempty"`
	Restarts      uint64     `json:"restarts"`
	LastExit      string     `json:"last_exit,omitempty"`
	LastExitAt    *time.Time `json:"last_exit_at,omitempty"`
	ResidentBytes int64      `json:"resident_bytes"`
	Contexts      int        `json:"contexts"`
	Redelivered   uint64     `json:"redelivered"`
	CommandsLost  uint64     `json:"commands_lost"`
}

// apiJSON is the HTTP API as the built-in modules see it.
type apiJSON struct {
	Up            bool    `json:"up"`
	Queued        int     `json:"queued"`
	Spooled       int     `json:"spooled"`
	QueuedBytes   int64   `json:"queued_bytes"`
	OldestSeconds float64 `json:"oldest_seconds"`
	Posted        uint64  `json:"posted"`
	Refused       uint64  `json:"refused"`
	Lost          uint64  `json:"lost"`
	Invalid       uint64  `json:"invalid"`
	Retries       uint64  `json:"retries"`
	Commands      uint64  `json:"commands"`
}

func (s *Server) modules(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	sums := make(map[int]*observe.ModuleSum)
	for _, sum := range observe.SumModules(s.opts.Source.Cars()) {
		sums[sum.Number] = sum
	}
	out := struct {
		Modules []moduleJSON `json:"modules"`
	}{[]moduleJSON{}}
	for _, m := range s.opts.Source.Modules() {
		j := moduleJSON{Number: int(m.Number), Kind: m.Kind, Name: m.Name}
		// Sums are per number: modules that share one, of different cars, show them
		// together.
		if sum := sums[j.Number]; sum != nil {
			j.Cars, j.Queued, j.QueuedLongest, j.OldestSeconds = sum.Cars, sum.Queued, sum.Longest, seconds(now, sum.Oldest)
			j.Statuses, j.Errors, j.Lost, j.CommandsFetched, j.CommandsDiscarded = sum.Statuses, sum.Errors, sum.Lost, sum.CommandsFetched, sum.CommandsDiscarded
			if a := sum.API; a != nil && m.Kind == "builtin" {
				j.API = &apiJSON{
					Up: a.Up, Queued: a.Queued, Spooled: a.Spooled, QueuedBytes: a.QueuedBytes, OldestSeconds: seconds(now, a.OldestQueued), Posted: a.Posted,
					Refused: a.Refused, Lost: a.Stats.Lost, Invalid: a.Invalid, Retries: a.Retries, Commands: a.Commands,
				}
			}
		}
		if p := m.Process; p != nil {
			j.Process = &processJSON{
				PID: p.PID, Ready: p.Ready, OutOfService: p.OutOfService, Since: when(p.Since), Restarts: p.Restarts, LastExit: p.LastExit,
				LastExitAt: when(p.LastExitAt), ResidentBytes: p.RSS, Contexts: p.Contexts, Redelivered: p.Redelivered, CommandsLost: p.CommandsLost,
			}
		}
		out.Modules = append(out.Modules, j)
	}
	answer(w, http.StatusOK, out)
}
