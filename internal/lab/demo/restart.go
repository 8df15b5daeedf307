package demo

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// restartAfter is when the server is restarted; a demo that is shorter than twice that
// restarts it in its middle.
const restartAfter = 20 * time.Second

// ward owns the server's process, and restarts it once.
type ward struct {
	opts     *Options
	config   string
	admin    string
	narrator *narrator
	failed   context.CancelCauseFunc // ends the demo when the server ends by itself

	open  sync.RWMutex // held for writing while no server is there
	mu    sync.Mutex
	now   *part // nil: there is none
	ready bool  // now has served
}

// start starts the server and waits until it serves.
func (w *ward) start(ctx context.Context) (*part, error) {
	p, err := startPart(w.opts, "server", "--config", w.config)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.now, w.ready = p, false
	w.mu.Unlock()
	if err := p.wait(ctx, serves(w.admin)); err != nil {
		return p, err
	}
	w.mu.Lock()
	w.ready = true
	w.mu.Unlock()
	go func() {
		<-p.done
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.now == p {
			w.failed(p.ended())
		}
	}()
	return p, nil
}

// take returns the process, whose end is nothing unexpected any more.
func (w *ward) take() *part {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.now
	w.now = nil
	return p
}

// stop ends the server for good: the cars are told.
func (w *ward) stop() error {
	w.open.Lock() // not in the middle of a restart
	defer w.open.Unlock()
	p := w.take()
	if p == nil {
		return nil
	}
	if !w.ready { // it may not be prepared for signals
		return p.stop(nil)
	}
	return p.stop(w.opts.FinalStop)
}

// restart ends the server as systemctl restart does and starts it again, while the cars
// drive, and tells what they have noticed.
func (w *ward) restart(ctx context.Context) error {
	w.open.Lock()
	defer w.open.Unlock()
	p := w.take()
	if p == nil {
		return nil
	}
	n := w.narrator
	n.say("", "is restarted while the cars drive: its process ends, another one begins")
	n.beginRestart()
	if err := p.stop(syscall.SIGTERM); err != nil {
		return err
	}
	stopped := time.Now()
	if started, err := w.start(ctx); err != nil {
		if started != nil {
			started.said.pass()
		}
		return err
	}
	n.say("", "is back: no process was there for %v", time.Since(stopped).Round(10*time.Millisecond))
	return nil
}

// restartOnce restarts the server in the middle of the demo.
func (w *ward) restartOnce(ctx context.Context) error {
	after := restartAfter
	if d := w.opts.Duration; d > 0 {
		after = min(after, d/2)
	}
	if !pause(ctx, after) {
		return nil
	}
	switch err := w.restart(ctx); {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("restart of the server: %w", err)
	}
	w.narrator.noticed(ctx)
	return nil
}

// restarted is what the cars noticed of the restart; guarded by narrator.mu.
type restarted struct {
	back    time.Time       // when the server was there again; zero: not yet
	lost    int             // sessions
	longest time.Duration   // wait for an answer
	served  map[string]bool // cars that were served since it ended
	cars    int             // all that were connected before
	all     chan struct{}   // closed when those were served
}

// beginRestart counts from now on.
func (n *narrator) beginRestart() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.restart = &restarted{served: make(map[string]bool), cars: len(n.running), all: make(chan struct{})}
}

// answered counts an answer; mu is held.
func (r *restarted) answered(car string, sent time.Time) {
	if r == nil {
		return
	}
	r.longest = max(r.longest, time.Since(sent))
	if !r.back.IsZero() && sent.After(r.back) && !r.served[car] {
		if r.served[car] = true; len(r.served) == r.cars {
			close(r.all)
		}
	}
}

// noticed waits until every car was served again and says what it has noticed.
func (n *narrator) noticed(ctx context.Context) {
	n.mu.Lock()
	n.restart.back = time.Now()
	all := n.restart.all
	if n.restart.cars == 0 {
		close(all)
	}
	n.mu.Unlock()
	limit := time.NewTimer(35 * time.Second) // a gateway gives up after 30 s
	defer limit.Stop()
	select {
	case <-all:
	case <-limit.C:
	case <-ctx.Done():
		return
	}
	n.mu.Lock()
	r := n.restart
	text := fmt.Sprintf("the cars have noticed nothing: sessions lost 0, longest wait for an answer %v", r.longest.Round(10*time.Millisecond))
	if r.lost > 0 || len(r.served) < r.cars {
		text = fmt.Sprintf("sessions lost %d, cars served again %d of %d", r.lost, len(r.served), r.cars)
	}
	n.mu.Unlock()
	n.say("", "%s", text)
}
