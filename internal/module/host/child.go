package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// child is one process of a module, from its start to its end. It is never
// reused.
type child struct {
	*process
	opts    *Options
	log     *slog.Logger
	started time.Time
	output  *output
	rss     atomic.Int64 // bytes
	holds   bool         // it knows polls that are held; set by the handshake
	ordered bool         // it takes the next statuses of a context meanwhile; the same

	mu      sync.Mutex
	pending map[uint64]*pending
	next    uint64
	ended   bool  // no request is accepted any more
	cause   error // why we ended it, if we did

	goneAt time.Time // set before gone is closed

	gone chan struct{} // closed when the process has ended
	dead chan struct{} // closed when everything below is final
	exit *Exit
	work sync.WaitGroup
}

// pending is a request without answer.
type pending struct {
	op      string
	car     string
	since   time.Time
	limit   time.Duration // 0: none
	warned  bool
	held    bool   // a poll that ends with commands or EndPoll
	behind  bool   // it waits in the process for another call of its context
	release func() // called once, when the answer has come or never will

	// answered gets the answer on the goroutine that reads; the fields below are not used
	// then. It must not wait. release is called without answer only.
	answered func(*pb.Result)

	result   chan *pb.Result       // capacity 1
	commands []fleet.Command       // of a poll, ahead of its result
	bytes    int                   // of the commands and what goes with them
	fetching bool                  // a poll takes commands out of the module
	unusable *module.UnusableError // commands of a poll that were dropped, here or in the process
}

var (
	// errDied is returned by request when the process ended before it answered.
	errDied = errors.New("the module process ended")
	// errNotAsked is errDied for a request that the process was not given.
	errNotAsked = fmt.Errorf("%w before it was asked", errDied)
)

// newChild takes ownership of the process.
func newChild(p *process, opts *Options, log *slog.Logger) *child {
	c := &child{
		process: p,
		opts:    opts,
		log:     log.With("pid", p.pid),
		started: time.Now(),
		pending: map[uint64]*pending{},
		gone:    make(chan struct{}),
		dead:    make(chan struct{}),
	}
	c.output = &output{log: c.log}
	return c
}

// run starts what belongs to the process; all of it has ended when dead is
// closed. greeted (capacity 1) gets the verdict on the first frame.
func (c *child) run(greeted chan<- error) {
	var reader, outputs sync.WaitGroup
	outputs.Go(func() { c.output.read("stdout", &lastWords{c.stdout, c.gone}) })
	outputs.Go(func() { c.output.read("stderr", &lastWords{c.stderr, c.gone}) })
	reader.Go(func() { c.receive(greeted) })
	stop := make(chan struct{})
	c.work.Go(func() { c.watch(stop) })
	c.work.Go(func() {
		status := c.awaitEnd()
		c.goneAt = time.Now()
		close(c.gone)
		if reaper := c.reap(); status == nil {
			status = &reaper
		}
		// What the process managed to say still counts; what a descendant that
		// could not be ended holds open does not.
		_ = c.conn.ExpireReads(lastWordsPause)
		reader.Wait()
		for _, f := range []*os.File{c.stdout, c.stderr} {
			_ = f.SetReadDeadline(time.Now().Add(lastWordsPause)) // wakes who reads already
		}
		done := make(chan struct{})
		go func() { defer close(done); outputs.Wait() }()
		select {
		case <-done:
		case <-time.After(lastWordsLimit): // a descendant goes on writing
			closeAll([]*os.File{c.stdout, c.stderr})
			<-done
		}
		close(stop)
		_ = c.conn.Close()
		closeAll([]*os.File{c.stdout, c.stderr})
		c.finish(*status)
	})
}

func (c *child) finish(status syscall.WaitStatus) {
	c.mu.Lock()
	c.ended = true
	left := c.pending
	c.pending = map[uint64]*pending{}
	c.exit = newExit(c, status, underWay(left))
	c.mu.Unlock()
	for _, p := range left {
		if p.release != nil {
			p.release()
		}
	}
	close(c.dead)
}

// killFor kills the process and its descendants because of cause, unless it has ended
// already.
func (c *child) killFor(cause error) {
	c.mu.Lock()
	first := c.cause == nil
	if first {
		c.cause = cause
	}
	c.mu.Unlock()
	if first {
		c.kill()
	}
}

// broken is called when the connection fails. Usually the process is ending just
// now, and how it ends says more than its connection.
func (c *child) broken(err error) {
	cause := fmt.Errorf("its connection broke: %w", err)
	if isFrameError(err) {
		c.killFor(cause)
		return
	}
	timer := time.NewTimer(endPatience)
	defer timer.Stop()
	select {
	case <-c.gone:
	case <-timer.C:
		c.killFor(cause)
	}
}

// endPatience is how long a process may live without connection.
const endPatience = 250 * time.Millisecond

func (c *child) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// receive hands answers to those who wait for them. It never waits itself.
func (c *child) receive(greeted chan<- error) {
	hello := &pb.ModuleFrame{}
	err := checkHello(hello, c.conn.Receive(hello))
	greeted <- err
	if err != nil {
		if errors.Is(err, errDied) {
			c.broken(err)
		} else {
			c.killFor(err)
		}
		return
	}
	for {
		select {
		case <-c.gone: // its last answers are read, also by a busy machine that needs long for them
			if time.Since(c.goneAt) < lastWordsLimit {
				_ = c.conn.ExpireReads(lastWordsPause)
			}
		default:
		}
		frame := &pb.ModuleFrame{}
		if err := c.conn.Receive(frame); err != nil {
			c.broken(err)
			return
		}
		c.mu.Lock()
		p := c.pending[frame.GetId()]
		switch kind := frame.GetKind().(type) {
		case *pb.ModuleFrame_Fetching:
			if p != nil {
				p.fetching = true
			}
		case *pb.ModuleFrame_Command:
			if p != nil {
				p.add(kind.Command)
			}
		case *pb.ModuleFrame_Result:
			delete(c.pending, frame.GetId())
		}
		flood := p != nil && p.bytes > maxBatchBytes
		c.mu.Unlock()
		if flood {
			c.killFor(fmt.Errorf("it answered one wait_for_command with more than %d MB of commands", maxBatchBytes>>20))
			return
		}
		result := frame.GetResult()
		if result == nil || p == nil {
			continue
		}
		for _, command := range result.GetCommands() {
			p.add(command)
		}
		if p.answered != nil {
			p.answered(result)
			continue
		}
		p.dropped(result)
		p.result <- result
		if p.release != nil {
			p.release()
		}
	}
}

// post sends a request; its answer, or dead, comes later. It returns errNotAsked when the
// process has ended, or is being ended, before.
func (c *child) post(frame *pb.ServerFrame, p *pending) error {
	p.result = make(chan *pb.Result, 1)
	p.since = time.Now()
	c.mu.Lock()
	if c.ended || c.cause != nil {
		c.mu.Unlock()
		if p.release != nil {
			p.release()
		}
		<-c.dead
		return errNotAsked
	}
	c.next++
	frame.Id = c.next
	c.pending[frame.Id] = p
	c.mu.Unlock()
	if err := c.conn.Send(frame); err != nil {
		c.mu.Lock()
		_, ours := c.pending[frame.Id]
		delete(c.pending, frame.Id)
		c.mu.Unlock()
		if ours && p.release != nil {
			p.release()
		}
		if isFrameError(err) { // too large; nothing was sent
			return err
		}
		c.broken(err)
		<-c.dead
		return errDied
	}
	return nil
}

// hand sends a request whose answer p.answered gets, without waiting for the socket. It
// reports false when the process cannot be given it.
func (c *child) hand(frame *pb.ServerFrame, p *pending) bool {
	p.since = time.Now()
	c.mu.Lock()
	if c.ended || c.cause != nil {
		c.mu.Unlock()
		return false
	}
	c.next++
	frame.Id = c.next
	c.pending[frame.Id] = p
	c.mu.Unlock()
	if c.conn.Post(frame) == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ours := c.pending[frame.Id]
	delete(c.pending, frame.Id)
	return !ours // else finish has it
}

// begun says that the call in front of p has been answered.
func (c *child) begun(p *pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.behind, p.since = false, time.Now()
}

// await returns the answer to a posted request, errDied or the error of ctx. In
// the last case the request goes on without the caller.
func (c *child) await(ctx context.Context, p *pending) (*pb.Result, error) {
	select {
	case result := <-p.result:
		return result, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.dead:
	}
	select { // the answer may have been its last word
	case result := <-p.result:
		return result, nil
	default:
		return nil, errDied
	}
}

func (c *child) request(ctx context.Context, frame *pb.ServerFrame, p *pending) (*pb.Result, error) {
	if err := c.post(frame, p); err != nil {
		return nil, err
	}
	return c.await(ctx, p)
}

// maxBatchBytes bounds what one poll may bring: more is no batch but a module
// gone wild, and the server must not hold it (REC-22).
const maxBatchBytes = 72 << 20

func (p *pending) add(c *pb.Command) {
	if p.bytes > maxBatchBytes {
		return
	}
	d := c.GetDevice()
	p.bytes += len(c.GetData()) + len(d.GetRole()) + len(d.GetName()) + 128 // and the values themselves
	command := toCommand(c)
	if fault := module.CommandFault(&command); fault != "" { // the process has not looked, or cannot be trusted
		p.unusable = p.unusable.Add(fault)
		return
	}
	p.commands = append(p.commands, command)
}

// dropped adds what the process says it has dropped.
func (p *pending) dropped(result *pb.Result) {
	if n := int(result.GetUnusableCommands()); n > 0 {
		p.unusable = p.unusable.Add(printable(cut(result.GetUnusableReason())))
		p.unusable.Commands += n - 1
	}
}

// polling names the function that a poll was in: a library is asked for commands
// when it has said that there are any (MOD-14).
func (p *pending) polling() string {
	if p.fetching {
		return "pop_command"
	}
	return p.op
}

func (p *pending) what() string {
	if p.car == "" {
		return p.op
	}
	return p.op + " for car " + p.car
}

func toCommand(c *pb.Command) fleet.Command {
	d := c.GetDevice()
	return fleet.Command{
		Device: fleet.Device{Module: d.GetModule(), Type: d.GetType(), Role: d.GetRole(), Name: d.GetName(), Priority: d.GetPriority()},
		Data:   c.GetData(),
	}
}
