package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"external-server/internal/module"
	"github.com/fleet-protocol/external-server/sdk/boundary"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

var (
	_ module.Module   = (*Module)(nil)
	_ module.Recaller = (*Module)(nil)

	_ module.HoldingModule = (*Module)(nil)
)

// Module is a module in a process of its own.
type Module struct {
	opts    Options
	log     *slog.Logger
	number  int32
	spawner *spawner
	slots   chan struct{} // limits how many contexts are made anew at a time
	// suspects is held by the one call that is being handed over again.
	suspects chan struct{}
	outside  chan struct{} // closed when out of service, which is for good

	typesMu   sync.Mutex // taken for a moment only; mu may be held when it is, not the other way round
	supported map[uint32]bool

	mu        sync.Mutex
	late      int // contexts given up whose calls have not come back
	retired   bool
	overdue   int // questions of Supports that wait for longer than askPatience
	instances map[uint32]*instance
	nextID    uint32
	current   *child        // may be dead
	replaced  chan struct{} // closed when current changes
	status    module.ProcessState
	closed    bool
	holds     bool // the newest process knows polls that are held

	stop    context.CancelFunc
	stopped context.Context
	work    sync.WaitGroup
	ended   chan struct{} // closed when the supervisor has ended
}

// Open starts the process and waits until it has loaded the module. The error
// says what is wrong with the module, its file or its number (MOD-10).
func Open(ctx context.Context, opts Options) (*Module, error) {
	opts = opts.withDefaults()
	if len(opts.Command) == 0 || opts.Command[0] == "" {
		return nil, errors.New("module command is empty; name the executable and its arguments")
	}
	if opts.Name == "" {
		opts.Name = opts.Command[0]
	}
	if os.Getenv(boundary.EnvFD) != "" {
		// A program that forgot to be a host would start itself for ever.
		return nil, fmt.Errorf("%s: a module process cannot run modules itself; unset %s if this is none", opts.where(), boundary.EnvFD)
	}
	m := &Module{
		opts:      opts,
		log:       opts.logger(opts.Expect),
		spawner:   newSpawner(),
		slots:     make(chan struct{}, 16),
		suspects:  make(chan struct{}, 1),
		supported: map[uint32]bool{},
		instances: map[uint32]*instance{},
		replaced:  make(chan struct{}),
		outside:   make(chan struct{}),
		ended:     make(chan struct{}),
	}
	m.stopped, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	first, err := m.start(ctx)
	if err != nil {
		m.stop()
		m.spawner.close()
		return nil, fmt.Errorf("%s: %w", opts.where(), err)
	}
	m.log = opts.logger(m.number)
	m.install(first)
	go m.supervise(first) // Close waits for it
	return m, nil
}

// Number returns what the module reported at the start.
func (m *Module) Number() int32 { return m.number }

// HoldsPolls implements module.HoldingModule.
func (m *Module) HoldsPolls() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holds
}

// State may be called at any time.
func (m *Module) State() module.ProcessState {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Number, s.Name, s.Contexts = m.number, m.opts.Name, len(m.instances)
	if c := m.current; c != nil && !c.isDead() {
		s.PID, s.RSS, s.Since = c.pid, c.rss.Load(), c.started
		s.Silent, s.Slow = c.silent(time.Now())
		if rss, err := residentMemory(c.pid); err == nil {
			s.RSS = rss
		}
		for _, i := range m.instances {
			s.Ready = s.Ready && i.attachedTo(c)
		}
	} else {
		s.Ready = false
		if c != nil && s.LastExitAt.Before(c.started) { // the supervisor does not know yet
			s.LastExit, s.LastExitAt = c.exit.Reason, time.Now()
		}
	}
	return s
}

// HeapBytes asks the process how much memory its module has allocated; 0 when it
// does not know.
func (m *Module) HeapBytes(ctx context.Context) (uint64, error) {
	c, err := m.process(ctx)
	if err != nil {
		return 0, err
	}
	result, err := c.request(ctx, &pb.ServerFrame{Kind: &pb.ServerFrame_Ping{Ping: &pb.Ping{}}},
		&pending{op: opPing, limit: pingTimeout})
	return result.GetHeapBytes(), err
}

// Open creates the context of one car in the process. It waits while the process
// is being replaced, and does not try again when the process ends during init.
func (m *Module) Open(ctx context.Context, spec module.InstanceSpec) (module.Instance, error) {
	fail := func(err error) (module.Instance, error) {
		return nil, fmt.Errorf("module %d (%s), car %s: %w", m.number, m.opts.Name, spec.Car, err)
	}
	c, err := m.process(ctx)
	if err != nil {
		return fail(err)
	}
	m.mu.Lock()
	m.nextID++
	i := newInstance(m, m.nextID, spec)
	m.mu.Unlock()
	lines := c.output.count()
	err = i.attach(ctx, c, true)
	switch {
	case errors.Is(err, errDied):
		return fail(fmt.Errorf("init did not return: %w", c.exit))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fail(fmt.Errorf("init: %w (%w)", module.ErrStuck, err))
	case err != nil:
		// A module says why by what it prints.
		if printed := c.output.since(ctx, lines); printed != "" {
			err = fmt.Errorf("%w; last output: %s", err, printed)
		}
		return fail(err)
	}
	if err := m.register(i, c); err != nil {
		return fail(err)
	}
	return i, nil
}

// register makes the context, which exists in process c, one of those that every
// further process gets.
func (m *Module) register(i *instance, c *child) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.instances[i.id] = i
	if now := m.current; now != c { // replaced meanwhile, and attachAll did not know of this one
		m.work.Go(func() { _ = i.reattach(now) })
	}
	return nil
}

// process returns the running process, waiting for it if there is none.
func (m *Module) process(ctx context.Context) (*child, error) {
	for {
		m.mu.Lock()
		c, replaced, closed := m.current, m.replaced, m.closed
		m.mu.Unlock()
		select {
		case <-m.outside:
			return nil, module.ErrOutOfService
		default:
		}
		switch {
		case closed:
			return nil, ErrClosed
		case !c.isDead():
			return c, nil
		}
		select {
		case <-replaced:
		case <-m.outside:
		case <-m.stopped.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("the module process is being replaced: %w", ctx.Err())
		}
	}
}

// Close ends the process, politely at first. Contexts that are still open end
// with it.
func (m *Module) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	instances := slices.Collect(maps.Values(m.instances))
	m.mu.Unlock()
	for _, i := range instances {
		i.gate.Shut() // on this side only
	}
	m.stop()
	<-m.ended
	m.work.Wait()
	m.spawner.close()
	return nil
}

// start spawns a process and takes it through the handshake.
func (m *Module) start(ctx context.Context) (*child, error) {
	p, err := spawn(m.spawner, &m.opts)
	if err != nil {
		return nil, err
	}
	c := newChild(p, &m.opts, m.log)
	greeted := make(chan error, 1)
	c.run(greeted)
	result, err := m.handshake(ctx, c, greeted)
	if err != nil {
		c.killFor(err)
		<-c.dead
		c.work.Wait()
		if errors.Is(err, errDied) || errors.Is(err, errNoGreeting) {
			hint := ""
			if errors.Is(err, errDied) && !m.opts.library {
				hint = "; is it a program that speaks the module protocol?"
			}
			return nil, fmt.Errorf("did not start: %w%s", c.exit, hint)
		}
		return nil, err
	}
	c.holds, c.ordered = result.GetHoldsPolls(), result.GetCallsInOrder()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holds = c.holds
	if m.number == 0 { // the first; from now on the same is expected
		m.number = result.GetModuleNumber()
		m.opts.Expect = m.number
	}
	m.typesMu.Lock()
	defer m.typesMu.Unlock()
	clear(m.supported)
	for _, deviceType := range result.GetSupportedTypes() {
		if len(m.supported) < module.MaxRecalled {
			m.supported[deviceType] = true
		}
	}
	if len(m.supported) == 0 {
		m.supported[0] = false
	}
	return c, nil
}

var errNoGreeting = errors.New("it did not greet in time")

func (m *Module) handshake(ctx context.Context, c *child, greeted <-chan error) (*pb.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, m.opts.StartTimeout)
	defer cancel()
	select {
	case err := <-greeted:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("%w (%v); is it an executable that speaks the module protocol?", errNoGreeting, m.opts.StartTimeout)
	case <-c.dead:
		return nil, errDied
	}
	result, err := c.request(ctx, &pb.ServerFrame{Kind: &pb.ServerFrame_Start{Start: &pb.Start{
		ModuleNumber: m.opts.Expect, Server: "external-server"}}}, &pending{op: "start"})
	switch {
	case errors.Is(err, errDied):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("the module was not loaded within %v", m.opts.StartTimeout)
	case result.GetCode() != module.CodeOK && result.GetError() != "":
		return nil, errors.New(errorText(result))
	case result.GetCode() != module.CodeOK:
		return nil, fmt.Errorf("the module answered the start with code %d", result.GetCode())
	case m.opts.Expect != 0 && result.GetModuleNumber() != m.opts.Expect:
		return nil, fmt.Errorf("reports module number %d but is configured as module %d; correct the number that is its key or the module",
			result.GetModuleNumber(), m.opts.Expect)
	}
	return result, nil
}

// checkHello tells whether the first frame of a process is the right one.
func checkHello(frame *pb.ModuleFrame, err error) error {
	hello := frame.GetHello()
	switch {
	case err != nil && isFrameError(err):
		return fmt.Errorf("it does not speak the module protocol: %w", err)
	case err != nil:
		return errDied
	case hello == nil:
		return fmt.Errorf("it does not speak the module protocol: its first frame is %T instead of Hello", frame.GetKind())
	case hello.GetProtocol() != boundary.Protocol:
		return fmt.Errorf("it speaks version %d of the module protocol, this server speaks version %d", hello.GetProtocol(), boundary.Protocol)
	}
	return nil
}
