package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"external-server/internal/journal"
)

// ErrUnfinished: the journal of the process before could not be written to its end.
var ErrUnfinished = errors.New("the journal does not hold everything that was answered")

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
	// when it can. The journal is empty then, and the files were set aside; if that is not
	// possible, the journal is a broken one (ShardOptions.OnFault) until it is begun anew.
	Declined error
	// Rest is, when Declined is not nil, what could still be read: an older state
	// than the process before had, no base to answer from. It may be nil.
	Rest journal.Fold
	// SetAside is where the files were moved that cannot be resumed from; "": there were none.
	SetAside string
	// Lost says that the journal set aside is one of those that Dir.Lost has counted.
	Lost bool

	dir     *Dir
	options journal.Options
	number  int
	serving bool // under dir.mu
}

// OpenShard opens the journal of one shard, once until CloseShard. What cannot be resumed from is
// set aside and the shard begins empty (Shard.Declined). If the place of this one journal
// cannot be used, the shard has a broken journal. An error means that the directory cannot
// be used; the cars can be served without.
func (d *Dir) OpenShard(number int, opts ShardOptions) (*Shard, error) {
	if number < 0 || number >= d.id.Shards {
		return nil, fmt.Errorf("shard %d: there are %d", number, d.id.Shards)
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	lost := d.losing[number]
	d.losing[number] = false
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
		Mark: s.mark, OnFault: opts.OnFault, Turn: &d.turn, Written: d.vigil.Called,
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
		return d.opened(s), nil
	case errors.Is(err, ErrUnfinished), errors.Is(err, journal.ErrDamaged):
		s.Rest, _ = journal.Salvage(jo) // the error is known
	case !errors.Is(err, journal.ErrNewer) && !errors.Is(err, journal.ErrForeign):
		return d.without(s, fmt.Errorf("the journal of a shard cannot be read: %w", err))
	}
	s.Declined = err
	if s.SetAside, err = d.setShardAside(number); err != nil {
		return d.without(s, fmt.Errorf("%w; it cannot be set aside: %w: move %s away", s.Declined, err, jo.Dir))
	}
	if s.Lost = lost && s.SetAside != ""; !s.Lost && s.SetAside != "" {
		level := slog.LevelWarn // what ails one journal often ails all
		if d.told {
			level = slog.LevelDebug
		}
		d.told = true
		d.log.Log(context.Background(), level, "the journal of a shard cannot be resumed from: its cars connect anew. Events name all such journals. What is set aside is not used any more; look for the cause and remove it, of such directories the newest three are kept",
			"shard", number, "error", s.Declined, "set aside as", s.SetAside)
	}
	s.options.AtLeast = 0
	if s.Journal, err = journal.Open(s.options); err != nil {
		return d.without(s, fmt.Errorf("the journal of a shard cannot be begun anew: %w", err))
	}
	d.mu.Lock()
	d.before.shards[number], d.page.shards[number] = shardPage{}, shardPage{}
	d.mu.Unlock()
	d.opened(s)
	if err := d.write(); err != nil {
		return nil, err
	}
	return s, nil
}

// opened says that the shard is open.
func (d *Dir) opened(s *Shard) *Shard {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shards[s.number] = s
	return s
}

// without opens a shard whose journal err keeps from being used: it is broken from its
// beginning, and what is in its place is nothing to resume from.
func (d *Dir) without(s *Shard, err error) (*Shard, error) {
	s.Declined, s.Rest, s.SetAside = err, nil, ""
	var invalid error
	if s.Journal, invalid = journal.Broken(s.options, err); invalid != nil {
		return nil, errors.Join(err, invalid)
	}
	d.mu.Lock()
	d.before.shards[s.number] = shardPage{}
	d.mu.Unlock()
	d.opened(s)
	if s.options.OnFault != nil {
		s.options.OnFault(err)
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

// Restart is that of the journal. The directory of all journals is made first, if somebody
// has removed it.
func (s *Shard) Restart() {
	_ = makeShards(s.dir.shardsPath()) // the next write tells what is wrong
	s.Journal.Restart()
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
