package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/journal"
)

// ErrUnfinished: the journal of the process before could not be written to its end.
var ErrUnfinished = errors.New("the journal does not hold everything that was answered")

// kept is how many directories of each kind that were set aside are kept.
const kept = 3

// ShardOptions of OpenShard; see journal.Options.
type ShardOptions struct {
	SegmentBytes int64
	MaxBytes     int64
	Sync         bool
	NewFold      func() journal.Fold
	OnFault      func(error)
}

// Shard is the part of the state directory that belongs to one connection. Its
// Journal is closed by Dir.Close.
type Shard struct {
	*journal.Journal

	// Declined is why what the process before has left cannot be resumed from; nil
	// when it can. The journal is empty then, and the files were set aside.
	Declined error
	// Rest is, when Declined is not nil, what could still be read: an older state
	// than the process before had, no base to answer from. It may be nil.
	Rest journal.Fold
	// SetAside is where the files were moved that cannot be resumed from; "": there were none.
	SetAside string

	dir     *Dir
	options journal.Options
	number  int
	serving bool // under dir.mu
}

// OpenShard opens the journal of one shard, once until CloseShard. What cannot be resumed from is
// set aside and the shard begins empty (Shard.Declined). An error means that there
// can be no journal; the cars of the shard can be served without.
func (d *Dir) OpenShard(number int, opts ShardOptions) (*Shard, error) {
	if number < 0 || number >= d.id.Shards {
		return nil, fmt.Errorf("shard %d: there are %d", number, d.id.Shards)
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	before, again := d.page.shards[number], d.closed || d.shards[number] != nil
	d.mu.Unlock()
	if again {
		return nil, fmt.Errorf("shard %d is open already, or the state directory is closed", number)
	}
	s := &Shard{dir: d, number: number}
	jo := journal.Options{
		Dir: d.shardPath(number), Shard: number, Identity: d.id.Identity,
		SegmentBytes: opts.SegmentBytes, MaxBytes: opts.MaxBytes, Sync: opts.Sync,
		AtLeast: before.sequence, NewFold: opts.NewFold,
		Mark: s.mark, OnFault: opts.OnFault, Turn: &d.turn,
		Logger: d.log.With("shard", number),
	}
	s.options = jo
	var err error
	if before.broken {
		err = fmt.Errorf("%w: %s", ErrUnfinished, jo.Dir)
	} else {
		s.Journal, err = journal.Open(jo)
	}
	switch {
	case err == nil:
		d.mu.Lock()
		d.shards[number] = s
		d.mu.Unlock()
		return s, nil
	case errors.Is(err, ErrUnfinished), errors.Is(err, journal.ErrDamaged):
		s.Rest, _ = journal.Salvage(jo) // the error is known
	case !errors.Is(err, journal.ErrNewer) && !errors.Is(err, journal.ErrForeign):
		return nil, err
	}
	s.Declined = err
	if s.SetAside, err = d.setAside(jo.Dir, "damaged"); err != nil {
		return nil, errors.Join(s.Declined, err)
	}
	if s.SetAside != "" {
		d.log.Warn("the journal of a shard cannot be resumed from: its cars connect anew", "shard", number, "error", s.Declined, "set aside as", s.SetAside)
	}
	jo.AtLeast = 0
	s.Journal, err = journal.Open(jo)
	d.mu.Lock()
	d.before.shards[number], d.page.shards[number] = shardPage{}, shardPage{}
	if err == nil {
		d.shards[number] = s
	}
	d.mu.Unlock()
	if err := errors.Join(err, d.write()); err != nil {
		return nil, err
	}
	return s, nil
}

// CloseShard closes the journal of one shard, which may be opened again. With remove it is
// removed, whether it is open or not, and the note of its epoch before it: what
// it knows belongs to somebody else now.
func (d *Dir) CloseShard(number int, remove bool) error {
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	s, closed := d.shards[number], d.closed
	d.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	if remove {
		errs = append(errs, d.forgetEpoch(number))
	}
	switch {
	case s != nil:
		errs = append(errs, s.Journal.Close(remove))
	case remove:
		errs = append(errs, d.removeShard(number))
	}
	d.mu.Lock()
	d.stampShards()
	d.shards[number] = nil
	if remove {
		d.before.shards[number], d.page.shards[number] = shardPage{}, shardPage{}
	}
	d.mu.Unlock()
	errs = append(errs, d.write())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the journal of shard %d: %w", number, err)
	}
	return nil
}

// Reread returns what the journal says now. It reads the files, while the journal goes
// on, and does not change them.
func (s *Shard) Reread() (journal.Fold, error) {
	opts := s.options
	opts.AtLeast = 0
	var fold journal.Fold
	var err error
	for range 3 { // a compaction may take a file away meanwhile
		if err = s.Flush(); err != nil {
			break
		}
		if fold, err = journal.Salvage(opts); err == nil {
			return fold, nil
		}
	}
	return nil, fmt.Errorf("read the journal of shard %d: %w", s.number, err)
}

// mark notes whether the journal may be resumed from.
func (s *Shard) mark(usable bool) {
	d := s.dir
	d.mu.Lock()
	d.page.shards[s.number].broken = !usable
	d.mu.Unlock()
	if d.write() != nil {
		d.poke() // tried again, and told
	}
}

// Serving says that the cars of the shard are being served, or are not any more.
// The time at which they were served last decides how the next process resumes. It
// does not wait for the disk.
func (s *Shard) Serving(on bool) {
	d := s.dir
	now, err := d.clock.now()
	d.mu.Lock()
	if (on || s.serving) && err == nil {
		d.page.shards[s.number].served = now
	}
	s.serving = on
	d.served = d.served || on
	d.mu.Unlock()
	d.poke()
}

// Down is how long ago the shard was served by the process before; it is not known
// on a first start, after a restart of the machine, and when Declined is set.
func (s *Shard) Down() (time.Duration, bool) { return s.dir.down(s.number) }

func (d *Dir) shardsPath() string { return filepath.Join(d.opts.Dir, "shards") }

func (d *Dir) shardPath(number int) string {
	return filepath.Join(d.shardsPath(), fmt.Sprintf("%02d", number))
}

// removeShard removes a journal that is not open.
func (d *Dir) removeShard(number int) error { return journal.Remove(d.shardPath(number)) }

// SetAside moves the journals of all shards out of the way, so that nothing is
// resumed, and returns where they are. It is for Poisoned, before any shard is opened.
func (d *Dir) SetAside() (to string, err error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	open := slices.ContainsFunc(d.shards[:], func(s *Shard) bool { return s != nil })
	d.mu.Unlock()
	if open {
		return "", errors.New("set the journals aside: a shard is open already")
	}
	to, err = d.setAside(d.shardsPath(), "poisoned")
	if err == nil {
		err = os.Mkdir(d.shardsPath(), 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("set the journals aside: %w", err)
	}
	d.mu.Lock()
	clear(d.before.shards[:])
	clear(d.page.shards[:])
	deaths := d.before.early
	d.before.poison, d.page.poison, d.before.early, d.page.early = 0, 0, 0, 0
	d.mu.Unlock()
	d.log.Error("the server died again and again soon after it had resumed the cars' sessions: they are not resumed this time, the cars connect anew",
		"deaths", deaths, "journals set aside as", to)
	return to, d.write()
}

// setAside renames a directory to the next free name of a kind and removes the
// oldest ones of that kind. It returns the new path; empty: there was nothing.
func (d *Dir) setAside(dir, kind string) (string, error) {
	entries, err := os.ReadDir(d.opts.Dir)
	if err != nil {
		return "", fmt.Errorf("read the state directory: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), kind+"-")
		if n, err := strconv.Atoi(rest); ok && err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.SortFunc(numbers, func(a, b int) int { return cmp.Compare(b, a) })
	next := 1
	if len(numbers) > 0 {
		next = numbers[0] + 1
	}
	path := func(n int) string { return filepath.Join(d.opts.Dir, fmt.Sprintf("%s-%d", kind, n)) }
	if err := os.Rename(dir, path(next)); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("set %s aside: %w", dir, err)
	}
	for _, n := range numbers[min(kept-1, len(numbers)):] {
		if err := os.RemoveAll(path(n)); err != nil {
			d.log.Warn("what was set aside long ago cannot be removed", "directory", path(n), "error", err)
		}
	}
	return path(next), nil
}
