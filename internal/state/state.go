package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"external-server/internal/state/vigil"
)

const (
	stampInterval = time.Second
	// poisonDeaths is how many deaths at once after a resume make all journals suspect
	// (RES-17). It leaves the caller time to leave out what it suspects.
	poisonDeaths = 8
	// atOnce is how long a process must live after Resumed not to count among them, unless
	// Outlived is called before.
	atOnce = 2 * time.Second
)

// Options of Open; zero values mean the defaults where there is one.
type Options struct {
	Dir     string // made when missing, with mode 0700; its parent must exist
	Shards  int    // default 32; fixed when the directory is made
	Version string // of the program, told to a process that waits

	// Settled is how long a process must live after Resumed for its resume to
	// count as survived; default 10 s.
	Settled time.Duration

	// Waiting is told once which process has the directory, when Open has to wait.
	Waiting func(holder string)

	Logger *slog.Logger // default: none

	clock  *clock                      // tests
	fsType func(string) (int64, error) // tests
}

// Dir is an open state directory, which no other process has. Its methods may be
// called from several goroutines.
type Dir struct {
	opts  Options
	log   *slog.Logger
	id    identity
	lock  *locked
	alive *os.File
	clock clock
	turn  sync.Mutex // of the journals' compaction
	vigil *vigil.Vigil

	opening  sync.Mutex // one shard at a time; taken before the others
	damaged  string     // where journals are set aside; "": not yet; under opening
	told     bool       // that a journal was; under opening
	writing  sync.Mutex // one write of the page at a time; taken before mu
	mu       sync.Mutex // never held while the disk works
	before   page       // what the process before has left
	page     page
	shards   [MaxShards]*Shard
	resuming bool  // Resuming was called
	resumed  bool  // Resumed was called
	outlived bool  // Outlived was called
	served   bool  // a shard was served by this process
	trouble  error // the last write of the page
	closed   bool
	losing   [MaxShards]bool // journals that Lost counts and that were not set aside yet

	lostCount int // see Lost; not changed after Open
	lost      string

	wake   chan struct{} // the page has changed
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Open opens or makes the state directory and reads what the process before has
// left. While another process has it, Open waits until ctx ends. Errors name the
// path and what to do; ErrNewer, ErrShards and ErrNetwork are among them. Whatever
// the error, the caller can serve without a state directory.
func Open(ctx context.Context, opts Options) (_ *Dir, err error) {
	if opts.Shards == 0 {
		opts.Shards = 32
	}
	if opts.Shards < 1 || opts.Shards > MaxShards {
		return nil, fmt.Errorf("state directory %s: %d shards, possible are 1 to %d", opts.Dir, opts.Shards, MaxShards)
	}
	if opts.Settled <= 0 {
		opts.Settled = 10 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.fsType == nil {
		opts.fsType = fileSystemType
	}
	d := &Dir{opts: opts, log: opts.Logger, clock: machineClock(), wake: make(chan struct{}, 1)}
	if opts.clock != nil {
		d.clock = *opts.clock
	}
	if err := prepare(opts.Dir, opts.fsType); err != nil {
		return nil, err
	}
	if d.lock, err = acquire(ctx, opts.Dir, opts.Waiting); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.lock.Close())
		}
	}()
	made := false
	if d.id, made, err = readIdentity(opts.Dir, opts.Shards); err != nil {
		return nil, err
	}
	if err := writeHolder(d.lock, opts.Version); err != nil {
		return nil, fmt.Errorf("write %s: %w", d.lock.file.Name(), err)
	}
	if err := makeShards(d.shardsPath()); err != nil {
		return nil, err
	}
	if err := d.openPage(made); err != nil {
		return nil, err
	}
	d.vigil = vigil.New()
	ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	d.done.Go(func() { d.stamp(ctx) })
	return d, nil
}

// openPage reads the page that the process before has left, and writes ours.
func (d *Dir) openPage(made bool) (err error) {
	boot, err := d.clock.boot()
	if err != nil {
		return err
	}
	path := filepath.Join(d.opts.Dir, "alive")
	if d.alive, err = openFile(path); err != nil {
		return err
	}
	before, fresh, err := readPage(d.alive)
	if err == nil && !fresh && before.identity != d.id.Identity {
		err = fmt.Errorf("%s is of the state directory %q, this one is %q", path, printable(before.identity), d.id.Identity)
	}
	if err == nil && fresh && !made {
		err = fmt.Errorf("%s was missing or empty", path)
	}
	if err != nil || fresh {
		before = page{}
		for i := range before.shards {
			before.shards[i].broken = !made // nothing says that the journals are whole
		}
	}
	if err != nil {
		err = errors.Join(err, d.lose())
		if d.lostCount > 0 || !fresh {
			d.log.Warn("the state directory does not tell when the cars were last served: no session is resumed, the cars connect anew. The file is written anew; look whether the disk is at fault or another program writes to the directory",
				"directory", d.opts.Dir, "error", err, "journals", d.lostCount, "set aside in", d.lost)
		}
	}
	d.before, d.page = before, before
	d.page.clean, d.page.identity, d.page.boot = false, d.id.Identity, boot
	for i := range d.page.shards {
		if before.boot != boot { // times and what the kernel had not written are gone
			d.page.shards[i].served, d.page.shards[i].sequence = 0, 0
		}
	}
	if err := d.write(); err != nil {
		return errors.Join(fmt.Errorf("write the state directory: %w", err), d.alive.Close())
	}
	return nil
}

// Identity is what tells this directory from all others: 16 characters a-z, 2-7.
func (d *Dir) Identity() string { return d.id.Identity }

// Shards is the number of shards.
func (d *Dir) Shards() int { return d.id.Shards }

// Clean tells whether the process before stopped in order.
func (d *Dir) Clean() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.before.clean
}

// Down is how long ago any shard was served by the process before; it is not known
// on a first start and after a restart of the machine. It grows while this process
// lives, until it serves.
func (d *Dir) Down() (down time.Duration, known bool) {
	for n := range d.id.Shards {
		if one, ok := d.down(n); ok && (!known || one < down) {
			down, known = one, true
		}
	}
	return down, known
}

func (d *Dir) down(shard int) (time.Duration, bool) {
	now, err := d.clock.now()
	if err != nil {
		return 0, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.before.down(shard, now, d.page.boot)
}

// Resuming notes, before anything is read or resumed, that this process is about to.
// When it dies before Options.Settled has passed since Resumed, it counts among the
// Deaths that the next one finds. After an error nothing should be resumed. Calls after
// the first do nothing.
func (d *Dir) Resuming() error {
	d.mu.Lock()
	if d.resuming || d.closed {
		d.mu.Unlock()
		return nil
	}
	d.resuming = true
	d.page.poison++
	d.page.early++
	d.mu.Unlock()
	if err := d.write(); err != nil {
		return fmt.Errorf("note the resume in the state directory: %w", err)
	}
	return nil
}

// Resumed says that what was to be resumed has begun: the time to live begins.
func (d *Dir) Resumed() {
	d.mu.Lock()
	d.resumed = true
	d.mu.Unlock()
	d.poke()
}

// Outlived says that all that this process has begun with has been dealt with: whatever
// ends it from now on is not in the journals. Without it that is so after 2 s.
func (d *Dir) Outlived() {
	d.mu.Lock()
	d.outlived = true
	d.mu.Unlock()
	d.poke()
}

// Deaths is how many processes before this one, in a row, died soon after they had
// begun to resume. From two on the caller should suspect what all of them have begun
// with.
func (d *Dir) Deaths() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int(d.before.poison)
}

// Poisoned tells that so many processes died at once after they had begun to resume
// that the caller should begin without the
// journals, see SetAside.
func (d *Dir) Poisoned() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.before.early >= poisonDeaths
}

// Trouble is why the directory does not keep at present what it should, nil when it
// does.
func (d *Dir) Trouble() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trouble
}

// Close releases the directory and closes its journals. Final means that nothing
// is to be resumed: the journals are removed. Otherwise the page says that the
// process stopped in order. Calls after the first return nil.
func (d *Dir) Close(final bool) error {
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	shards := d.shards
	d.mu.Unlock()
	d.cancel()
	d.done.Wait()
	errs := make([]error, d.id.Shards)
	var closing sync.WaitGroup // all at once, because their compactions wait for each other
	for n := range errs {
		closing.Go(func() {
			if s := shards[n]; s != nil {
				errs[n] = s.Journal.Close(final)
			} else if final {
				errs[n] = d.removeShard(n)
			}
			if final {
				errs[n] = errors.Join(errs[n], d.forgetEpoch(n))
			}
		})
	}
	closing.Wait()
	d.vigil.Close()
	d.mu.Lock()
	d.stampShards()
	// A process that ended before it served says nothing about the one before.
	d.page.clean, d.page.poison = d.served || d.before.clean, 0
	d.page.early = 0
	if final {
		clear(d.page.shards[:])
	}
	d.mu.Unlock()
	errs = append(errs, d.write(), d.alive.Close(), d.lock.Close())
	return errors.Join(errs...)
}

// stamp writes the page once per second, and when it has changed, until ctx ends.
func (d *Dir) stamp(ctx context.Context) {
	tick := time.NewTicker(stampInterval)
	defer tick.Stop()
	settled, survived := time.NewTimer(0), time.NewTimer(0)
	settled.Stop()
	survived.Stop()
	defer settled.Stop()
	defer survived.Stop()
	resumed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-settled.C:
			d.mu.Lock()
			d.page.poison = 0
			d.mu.Unlock()
		case <-survived.C:
			d.mu.Lock()
			d.page.early = 0
			d.mu.Unlock()
		case <-tick.C:
		case <-d.wake:
		}
		d.mu.Lock()
		if d.resumed && !resumed {
			settled.Reset(d.opts.Settled)
			survived.Reset(atOnce)
			resumed = true
		}
		if d.resumed && d.outlived {
			d.page.early = 0
		}
		d.stampShards()
		d.mu.Unlock()
		d.look(d.write())
	}
}

// stampShards takes over what the page says of the shards; under mu.
func (d *Dir) stampShards() {
	now, err := d.clock.now()
	for n, s := range d.shards {
		if s == nil {
			continue
		}
		if s.serving && err == nil {
			d.page.shards[n].served = now
		}
		d.page.shards[n].sequence = s.Journal.Sequence()
	}
}

// write writes the page.
func (d *Dir) write() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	b := d.page.encode()
	d.mu.Unlock()
	_, err := d.alive.WriteAt(b, 0)
	return err
}

// poke has the page written soon.
func (d *Dir) poke() {
	select {
	case d.wake <- struct{}{}:
	default: // it is going to be
	}
}
