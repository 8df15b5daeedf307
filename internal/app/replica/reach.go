package replica

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/peer"
)

const (
	// reachEvery is the pause between two looks whether the other replicas answer this one.
	reachEvery = 10 * time.Second
	// reachMisses is how many looks in a row another replica must miss to be told of: one that has died is a
	// member until its lease ends.
	reachMisses = 2
)

// reach knows which members do not answer this replica at the addresses that they have told: a firewall, a wrong
// address, certificates or tokens that differ. Otherwise it would show only when a shard is to be handed over.
type reach struct {
	ask func(ctx context.Context, m cluster.Member) error
	// tell is called when a member is one that does not answer, and with nil when it answers again.
	tell func(m cluster.Member, err error)

	mu   sync.Mutex
	seen map[string]*contactOf // by name
	last time.Time             // when the members were asked
}

type contactOf struct {
	instance string // of the process
	asking   bool
	misses   int
	err      error // of the last miss
}

// look asks the members, if it is time to, beside the caller; work counts the questions.
func (r *reach) look(ctx context.Context, now time.Time, work *sync.WaitGroup, view *cluster.View) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last) < reachEvery {
		return
	}
	r.last = now
	known := r.seen
	r.seen = make(map[string]*contactOf, len(view.Members))
	for _, m := range view.Members {
		if m.Name == view.Self {
			continue
		}
		c := known[m.Name]
		if c == nil || c.instance != m.Instance {
			c = &contactOf{instance: m.Instance}
		}
		r.seen[m.Name] = c
		if c.asking { // the question before is not over yet
			continue
		}
		c.asking = true
		work.Go(func() { r.answered(ctx, m, c, r.ask(ctx, m)) })
	}
}

func (r *reach) answered(ctx context.Context, m cluster.Member, c *contactOf, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.asking = false
	before := c.misses
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		c.misses, c.err = 0, nil
		if before >= reachMisses {
			r.tell(m, nil)
		}
	default:
		c.misses, c.err = before+1, err
		if c.misses == reachMisses {
			r.tell(m, err)
		}
	}
}

// beyond says which members do not answer, and why; it is empty when all do.
func (r *reach) beyond() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for name, c := range r.seen {
		if c.misses >= reachMisses {
			out = append(out, "replica "+name+" does not answer this one, so no shard is handed over to it: "+c.err.Error())
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// contacts returns what Look asks the other replicas with.
func (r *Replica) contacts() *reach {
	return &reach{
		ask: func(ctx context.Context, m cluster.Member) error {
			_, err := r.askPeer(peer.For(ctx, m.Name), m.Address, 0)
			return err
		},
		tell: func(m cluster.Member, err error) {
			if err == nil {
				r.log.Info("another replica answers this one again", "replica", m.Name, "address", m.Address)
				return
			}
			r.log.Warn("another replica does not answer this one: shards can be handed over to it only when it does", "replica", m.Name, "address", m.Address, "reason", err)
		},
	}
}
