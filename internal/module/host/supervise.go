package host

import (
	"math/rand/v2"
	"slices"
	"time"

	"external-server/internal/module"
)

// supervise replaces the process each time it ends, until Close or until that was
// too often.
func (m *Module) supervise(c *child) {
	defer close(m.ended)
	var restarts []time.Time // within the window
	pause := m.opts.BackoffMin
	for {
		select {
		case <-c.dead:
		case <-m.stopped.Done():
			m.shutDown(c)
			return
		}
		died := time.Now()
		m.died(c, died)
		if died.Sub(c.started) >= calm {
			pause = m.opts.BackoffMin
		}
		for c = nil; c == nil; {
			now := time.Now()
			restarts = slices.DeleteFunc(restarts, func(t time.Time) bool { return now.Sub(t) > m.opts.RestartWindow })
			if m.opts.MaxRestarts > 0 && len(restarts) >= m.opts.MaxRestarts {
				m.outOfService(len(restarts))
				return
			}
			if !m.sleep(pause/2 + rand.N(pause/2+1)) {
				return
			}
			if !m.needed() {
				m.log.Info("module process is not replaced, the server stops")
				<-m.stopped.Done()
				return
			}
			restarts = append(restarts, time.Now())
			pause = min(2*pause, m.opts.BackoffMax)
			c = m.replace(died)
			if m.stopped.Err() != nil && c == nil {
				return
			}
		}
	}
}

// died records the end of a process.
func (m *Module) died(c *child, at time.Time) {
	c.work.Wait()
	m.mu.Lock()
	m.status.LastExit, m.status.LastExitAt = c.exit.Reason, at
	m.status.Ready = false
	contexts := len(m.instances)
	m.mu.Unlock()
	m.log.Error("module process ended and is replaced", "pid", c.pid, "reason", c.exit.Reason,
		"under_way", c.exit.Calls, "last_output", c.exit.Output, "uptime", at.Sub(c.started).Round(time.Millisecond), "contexts", contexts)
}

// replace starts the next process and gives it the contexts of all cars.
func (m *Module) replace(died time.Time) *child {
	m.mu.Lock()
	m.status.Restarts++
	m.mu.Unlock()
	c, err := m.start(m.stopped)
	if err != nil {
		if m.stopped.Err() == nil {
			m.log.Error("module process cannot be replaced, trying again", "error", err)
			m.mu.Lock()
			m.status.LastExit, m.status.LastExitAt = err.Error(), time.Now()
			m.mu.Unlock()
		}
		return nil
	}
	instances := m.install(c)
	m.work.Go(func() { m.attachAll(c, instances, died) })
	return c
}

// install makes c the current process and returns the contexts it must get.
func (m *Module) install(c *child) []*instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = c
	close(m.replaced)
	m.replaced = make(chan struct{})
	m.status.Ready = true
	instances := make([]*instance, 0, len(m.instances))
	for _, i := range m.instances {
		instances = append(instances, i)
	}
	slices.SortFunc(instances, func(a, b *instance) int { return int(a.id) - int(b.id) })
	return instances
}

// attachAll makes the contexts anew, several at a time, and reports when the
// last one is there.
func (m *Module) attachAll(c *child, instances []*instance, died time.Time) {
	done := make(chan error, len(instances))
	for _, i := range instances {
		m.work.Go(func() { done <- i.reattach(c) })
	}
	for range instances {
		select {
		case err := <-done:
			if err != nil {
				return
			}
		case <-c.dead:
			return
		}
	}
	m.log.Info("module process replaced, all contexts are back", "pid", c.pid, "contexts", len(instances),
		"recovery", time.Since(died).Round(time.Millisecond))
}

// outOfService gives the module up, for as long as the server runs.
func (m *Module) outOfService(restarts int) {
	m.mu.Lock()
	m.status.OutOfService = true
	m.status.Since = time.Now()
	close(m.outside)
	m.mu.Unlock()
	m.log.Error("module is out of service: its process ended too often; its devices are treated as unsupported, "+
		"their statuses are answered and lost, until the server is restarted",
		"restarts", restarts, "window", m.opts.RestartWindow)
}

func (m *Module) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-m.stopped.Done():
		return false
	}
}

// Retire says that the server stops: from now on a process that ends is replaced
// only while a context waits to be given what was accepted for it.
func (m *Module) Retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired = true
}

// needed tells whether a process that has ended is to be replaced.
func (m *Module) needed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.retired || len(m.instances) > 0
}

// grace is how long the process may take to end by itself: nothing when it has kept a
// context waiting all the time that there was for the stop.
func (m *Module) grace() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.late > 0 {
		return 0
	}
	return stopGrace
}

// shutDown ends the process: the end of the connection asks it to, and after a
// while it is made to.
func (m *Module) shutDown(c *child) {
	grace := m.grace()
	_ = c.conn.CloseWrite()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.dead:
	case <-timer.C:
		c.killFor(module.ErrStuck)
		<-c.dead
	}
	c.work.Wait()
}
