package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"external-server/internal/httpapi"
	"external-server/internal/logging"
	"external-server/internal/module"
	"external-server/internal/module/spool"
)

// Options of New; zero values mean the defaults.
type Options struct {
	Builtin string // Mission, IO or Transparent
	// Pool is shared by all built-in modules of a server; nil: one of its own,
	// closed with the module.
	Pool *Pool
	// API is the HTTP API inside this process. Instances without api_url use it.
	// nil: there is none.
	API    httpapi.API
	Logger *slog.Logger
	// QueueSize and QueueBytes bound what one instance keeps in memory: statuses
	// and error messages (default 1000) and their bytes (default 4 MiB).
	QueueSize  int
	QueueBytes int
	// SpoolDirectory keeps the queues on disk, one directory per car and module
	// below it; empty: in memory only.
	SpoolDirectory string
	SpoolMaxBytes  int64 // per car and module, default 64 MiB
	// Await makes ForwardStatus return when the API has decided, instead of when the queue has the status: the
	// caller is the queue then, and new statuses are not written into the spool.
	Await bool
	// DryRun: instances are only opened and closed again, to see whether they can
	// be. Their spools are not touched, which may belong to a server that runs.
	DryRun bool
}

// Module is one built-in module. It fills module.Module.
type Module struct {
	kind    *kind
	opts    Options
	log     *slog.Logger
	pool    *Pool
	ownPool bool

	mu     sync.Mutex
	warned map[string]bool // keys of the configuration that were warned about
	spools map[*queue]spoolFault
}

// spoolFault is why the spool of an instance cannot be used.
type spoolFault struct {
	car string
	err error
}

var (
	_ module.Module   = (*Module)(nil)
	_ module.Recaller = (*Module)(nil)
)

// New makes the module. It does no I/O.
func New(opts Options) (*Module, error) {
	k, err := kindOf(opts.Builtin)
	if err != nil {
		return nil, err
	}
	if opts.QueueSize <= 0 {
		opts.QueueSize = module.DefaultQueue
	}
	if opts.QueueBytes <= 0 {
		opts.QueueBytes = 4 << 20
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Module{kind: k, opts: opts, log: opts.Logger.With(logging.ComponentKey, logging.ComponentModule, "module", k.number), pool: opts.Pool, warned: make(map[string]bool), spools: make(map[*queue]spoolFault)}
	if m.pool == nil {
		m.pool, m.ownPool = NewPool(opts.Logger), true
	}
	return m, nil
}

// Number is 1, 2 or 3 (VOC-7).
func (m *Module) Number() int32 { return m.kind.number }

// Supports is MM-20, MM-30, MM-40.
func (m *Module) Supports(deviceType uint32) bool { return m.kind.supports(deviceType) }

// Recall implements module.Recaller; the kind of the module decides.
func (m *Module) Recall(deviceType uint32) (supported, known bool) {
	return m.kind.supports(deviceType), true
}

// Open checks the configuration (MM-9) and makes the instance of one car. It
// makes no request: an API that is down does not prevent the start (CLI-20).
// Statuses that an earlier run left in the spool are posted first, but for a dry
// run.
func (m *Module) Open(_ context.Context, spec module.InstanceSpec) (module.Instance, error) {
	i, err := m.open(spec)
	if err != nil {
		return nil, fmt.Errorf("built-in module %s: %w", m.kind.name, err)
	}
	return i, nil
}

func (m *Module) open(spec module.InstanceSpec) (*Instance, error) {
	s, unknown, loose, err := parseSettings(m.kind, spec)
	if err != nil {
		return nil, err
	}
	m.warn(unknown, "unknown key in the configuration of a built-in module is ignored")
	m.warn(loose, "number in the configuration of a built-in module is followed by other characters, which are ignored")
	var local api
	if m.opts.API != nil {
		local = m.opts.API
	}
	l, err := m.pool.connect(s, local)
	if err != nil {
		return nil, err
	}
	i := newInstance(m, s, l)
	i.goOn(spec.Position)
	if m.opts.SpoolDirectory == "" {
		return i, nil
	}
	if m.opts.DryRun {
		err = writable(m.opts.SpoolDirectory)
	} else {
		err = m.openSpool(i)
	}
	if err != nil {
		l.release()
		return nil, fmt.Errorf("spool_directory: %w", err)
	}
	return i, nil
}

// openSpool gives the instance its spool, now or when it is free.
func (m *Module) openSpool(i *Instance) error {
	dir := filepath.Join(m.opts.SpoolDirectory, i.car.Company, i.car.Car, "module-"+strconv.Itoa(int(m.kind.number)))
	i.queue.open = func() (*spool.Spool, error) {
		return spool.Open(spool.Options{Dir: dir, MaxBytes: m.opts.SpoolMaxBytes, Logger: m.log.With("car", i.car.Car)})
	}
	i.queue.told = func(err error) { m.spoolTold(i, err) }
	sp, err := i.queue.open()
	switch {
	case err == nil:
		i.queue.spool = sp
		if n := sp.Len(); n > 0 {
			m.log.Info("statuses of an earlier run are posted first", "car", i.car.Car, "statuses", n)
			i.start(i.queue.claim())
		}
	case errors.Is(err, spool.ErrLocked):
		// The instance that this one replaces may still have it.
		i.awaitSpool()
		m.log.Info("the spool is in use, statuses are kept in memory until it is free", "car", i.car.Car, "directory", dir)
	case errors.Is(err, syscall.ENOSPC):
		i.queue.told(err)
		i.awaitSpool()
		m.log.Warn("the disk of the spool is full, statuses are kept in memory until there is room", "car", i.car.Car, "directory", dir)
	default:
		return err
	}
	return nil
}

// spoolTold notes that the spool of an instance fails, or that it does not.
func (m *Module) spoolTold(i *Instance, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.spools, i.queue)
		return
	}
	m.spools[i.queue] = spoolFault{i.car.Car, err}
}

// SpoolFault tells in how many instances the spool cannot be written to just now, such
// as on a full disk, and why, with one of them as the example. Those that keep nothing on
// disk have none.
func (m *Module) SpoolFault() (instances int, car string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.spools {
		if instances++; car == "" || f.car < car {
			car, err = f.car, f.err
		}
	}
	return instances, car, err
}

// writable tells whether spools can be made in the folder, and makes nothing.
func writable(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("%w; expected an existing directory, create it first", err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory; expected an existing directory", dir)
	}
	const write, search = 2, 1 // of access(2)
	if err := syscall.Access(dir, write|search); err != nil {
		return fmt.Errorf("%s cannot be written to by this user: %w; expected a directory of the user that the server runs as", dir, err)
	}
	return nil
}

// warn logs each key once, however many cars have it.
func (m *Module) warn(keys []string, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		if !m.warned[k] {
			m.warned[k] = true
			m.log.Warn(text, "key", k)
		}
	}
}

// Close releases the connections of a module that has a pool of its own.
func (m *Module) Close() error {
	if m.ownPool {
		m.pool.Close()
	}
	return nil
}
