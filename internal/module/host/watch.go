package host

import (
	"fmt"
	"os"
	"time"

	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// watch looks after the process: memory, overdue calls, signs of life.
func (c *child) watch(stop <-chan struct{}) {
	interval := min(500*time.Millisecond, max(c.opts.CallTimeout/4, 10*time.Millisecond))
	if c.opts.MemoryLimit > 0 {
		interval = min(interval, 100*time.Millisecond)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	ping := &pending{op: opPing, limit: min(c.opts.CallTimeout, pingTimeout)}
	pinged := false
	var last time.Time
	for {
		select {
		case <-stop:
			return
		case now := <-ticker.C:
			c.checkMemory()
			c.checkDeadlines(now)
			if pinged {
				select {
				case result := <-ping.result:
					pinged = false
					c.overduePolls(result.GetOverdue())
				default:
				}
			}
			if !pinged && now.Sub(last) >= min(c.opts.CallTimeout/2, pingPause) {
				last = now
				pinged = c.ping(ping)
			}
		}
	}
}

// opPing is the operation of pings.
const opPing = "the answer to a ping"

// pingPause is between two pings; a little less than a multiple of what the watch waits,
// so that a tick that is early does not cost another one.
const pingPause = 900 * time.Millisecond

// pingTimeout is how long a process may take to answer a ping, which concerns no
// library call: nothing but a process that is stopped or a machine in deep
// trouble takes that long.
const pingTimeout = 15 * time.Second

// ping asks for a sign of life: a process that is stopped or deadlocked as a
// whole is found also when no call is under way.
func (c *child) ping(p *pending) bool {
	c.mu.Lock()
	ended := c.ended || c.cause != nil
	c.mu.Unlock()
	if ended {
		return false // and post would wait for dead, which waits for us
	}
	p.result = make(chan *pb.Result, 1)
	p.since = time.Now()
	c.mu.Lock()
	c.next++
	id := c.next
	c.pending[id] = p
	c.mu.Unlock()
	// A full socket must not keep the watch from its other duties.
	c.work.Go(func() {
		if err := c.conn.Send(&pb.ServerFrame{Id: id, Kind: &pb.ServerFrame_Ping{Ping: &pb.Ping{OverdueMs: milliseconds(pollPatience)}}}); err != nil {
			c.broken(err)
		}
	})
	return true
}

// A ping is answered by the process, not by the module: one that is not answered for
// silentAfter means that the process hangs. A call may take its time, because modules may
// wait for a network; after slowAfter it is told. Both end the process much later.
const (
	silentAfter = 1250 * time.Millisecond
	slowAfter   = 1500 * time.Millisecond
)

// silent tells whether the process hangs, and which call of the module has been under way
// for long, "" for none. A module may wait for commands as long as it likes.
func (c *child) silent(now time.Time) (hangs bool, slow string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var oldest *pending
	for _, p := range c.pending {
		age := now.Sub(p.since)
		switch {
		case p.op == opPing:
			hangs = hangs || age >= silentAfter
		case p.behind:
		case p.op != opPoll && age >= slowAfter && (oldest == nil || p.since.Before(oldest.since)):
			oldest = p
		}
	}
	if oldest != nil {
		slow = oldest.what()
	}
	return hangs, slow
}

func (c *child) checkDeadlines(now time.Time) {
	var overdue, polling *pending
	c.mu.Lock()
	for _, p := range c.pending {
		age := now.Sub(p.since)
		switch {
		case p.held, p.behind: // see overduePolls; its time has not begun
		case p.op == opPoll:
			if age > p.limit+pollPatience && !p.warned {
				p.warned, polling = true, p
			}
		case p.limit > 0 && age > p.limit && (overdue == nil || p.since.Before(overdue.since)):
			overdue = p
		}
	}
	c.mu.Unlock()
	if polling != nil {
		c.pollOverdue(polling, now.Sub(polling.since))
	}
	if overdue != nil {
		c.killFor(fmt.Errorf("%s did not come back within %v", overdue.what(), overdue.limit))
	}
}

func (c *child) pollOverdue(p *pending, age time.Duration) {
	c.log.Warn("wait_for_command exceeds its timeout by far; the car gets no commands from this module",
		"car", p.car, "timeout", p.limit, "age", age.Round(time.Second))
}

// maxOverdue bounds the lines that one answer to a ping causes.
const maxOverdue = 16

// overduePolls reports the waits of held polls that the process says do not come back.
func (c *child) overduePolls(overdue []*pb.Overdue) {
	for _, o := range overdue[:min(len(overdue), maxOverdue)] {
		c.mu.Lock()
		p := c.pending[o.GetId()]
		c.mu.Unlock()
		if p != nil && p.held {
			c.pollOverdue(p, time.Duration(o.GetWaitingMs())*time.Millisecond)
		}
	}
}

func (c *child) checkMemory() {
	rss, err := residentMemory(c.pid)
	if err != nil {
		return // it is ending
	}
	c.rss.Store(rss)
	if limit := c.opts.MemoryLimit; limit > 0 && rss > limit {
		c.killFor(fmt.Errorf("it uses %d MB of memory, the limit (memory_limit_mb) is %d MB", rss>>20, limit>>20))
	}
}

// residentMemory reads the second field of statm, which counts pages.
func residentMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0, err
	}
	return resident * int64(os.Getpagesize()), nil
}
