package app

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"external-server/internal/app/journals"
	"external-server/internal/config"
	"external-server/internal/link"
	"external-server/internal/logging"
)

// sessionsPart lets sessions outlive the process, with the state directory. Trouble with
// it never keeps cars from being served; their sessions end with the process then. It
// implements journals.Service.
type sessionsPart struct {
	a      *App
	final  bool // this process is the last one
	writes *task
}

var _ journals.Service = (*sessionsPart)(nil)

func (*sessionsPart) keys() []string { return []string{"OnStop"} }

func (p *sessionsPart) prepare(ctx context.Context, old, fresh *config.Config) (change, error) {
	if old != nil || fresh.StateDirectory == "" {
		return change{}, nil
	}
	if err := p.a.journals.Open(ctx, fresh); err != nil {
		if ctx.Err() != nil {
			return change{}, context.Cause(ctx)
		}
		if fresh.Cluster != nil {
			return change{}, fmt.Errorf("a server of a cluster needs its state directory: %w", err)
		}
		component(p.a.log, logging.ComponentServer).Warn("the state directory cannot be used: the cars are served, their sessions will end with this process. When it is mended, restart this server: the cars connect anew then, and sessions are kept from there on", "error", err)
		return change{}, nil
	}
	return change{apply: func(ctx context.Context) error {
		p.writes = begin(ctx, func(ctx context.Context) error { return p.a.journals.Keep(ctx, p) })
		return nil
	}}, nil
}

// Up implements journals.Service.
func (p *sessionsPart) Up() func(shard int) bool {
	if shards := p.a.shards; shards != nil {
		return func(n int) bool {
			state, ok := shards.StateOf(n)
			return ok && state.Up
		}
	}
	connections := p.a.link.State().Connections
	return func(n int) bool { return n < len(connections) && connections[n].Up }
}

// CaughtUp implements journals.Service.
func (p *sessionsPart) CaughtUp() bool {
	connections := p.a.link.State().Connections
	if len(connections) == 0 || slices.ContainsFunc(connections, func(c link.ConnectionState) bool { return !c.Up || c.Reading }) {
		return false
	}
	return !p.a.roster.Resuming()
}

// Record implements journals.Service.
func (p *sessionsPart) Record(shard int) { p.a.roster.Record(shard) }

// suspend ends the link in such a way that the next process can go on with the
// sessions, and tells whether it can.
func (p *sessionsPart) suspend(link *linkPart) bool {
	a := p.a
	if !a.journals.Durable() || p.final || a.shards != nil || a.link.State().Declined != "" && !a.gateways.ours.Load() {
		return false
	}
	component(a.log, logging.ComponentServer).Info("suspending: the next start goes on with the sessions, no gateway is told")
	// While the cars are served: a module may need as long for this as its timeout is.
	a.roster.EndPolling()
	a.journals.Suspend(p.Up())
	link.suspend()
	return true
}

// stop closes the journals. After a final stop nothing can be resumed.
func (p *sessionsPart) stop() error {
	return errors.Join(p.writes.stop(), p.a.journals.Close(p.final))
}
