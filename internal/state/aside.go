package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// kept is how many directories of each kind that were set aside are kept.
const kept = 3

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

// lose makes the place for the journals that do not count because the page does not tell
// what they are worth; they are moved when their shards are opened.
func (d *Dir) lose() error {
	for n := range d.id.Shards {
		info, err := os.Lstat(d.shardPath(n))
		if err != nil {
			continue // OpenShard tells
		}
		if empty, err := emptyDir(d.shardPath(n), info); err == nil && !empty {
			d.losing[n] = true
			d.lostCount++
		}
	}
	if d.lostCount == 0 {
		return nil
	}
	err := d.makeDamaged()
	if err != nil {
		clear(d.losing[:])
		d.lostCount = 0
		return fmt.Errorf("set the journals aside: %w", err)
	}
	d.lost = d.damaged
	return nil
}

// Lost is how many journals do not count because the directory did not tell, when it was
// opened, when the cars were last served, and where they are set aside when their shards are
// opened. It was told in the log.
func (d *Dir) Lost() (journals int, to string) { return d.lostCount, d.lost }

// setShardAside moves the journal of a shard into the directory of what this process sets
// aside, and returns where it is; "": there is no file.
func (d *Dir) setShardAside(number int) (string, error) {
	from := d.shardPath(number)
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if empty, err := emptyDir(from, info); empty || err != nil {
		return "", err
	}
	to := func() string { return filepath.Join(d.damaged, filepath.Base(from)) }
	if _, err := os.Lstat(to()); d.damaged == "" || !errors.Is(err, fs.ErrNotExist) {
		if err := d.makeDamaged(); err != nil {
			return "", err
		}
	}
	if err := os.Rename(from, to()); err != nil {
		return "", err
	}
	return to(), nil
}

// emptyDir tells whether a path is a directory with nothing in it.
func emptyDir(path string, info fs.FileInfo) (bool, error) {
	if !info.IsDir() {
		return false, nil
	}
	entries, err := os.ReadDir(path)
	return err == nil && len(entries) == 0, err
}

// makeDamaged makes the directory for the journals that this process sets aside from now on.
func (d *Dir) makeDamaged() error {
	path, err := d.next("damaged")
	if err == nil {
		err = os.Mkdir(path, 0o700)
	}
	if err == nil {
		d.damaged = path
		d.removeOld("damaged")
	}
	return err
}

// setAside renames a directory to the next free name of a kind and removes the
// oldest ones of that kind. It returns the new path; empty: there was nothing.
func (d *Dir) setAside(dir, kind string) (string, error) {
	path, err := d.next(kind)
	if err != nil {
		return "", err
	}
	if err := os.Rename(dir, path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("set %s aside: %w", dir, err)
	}
	d.removeOld(kind)
	return path, nil
}

// next is the next free name of a kind of what was set aside.
func (d *Dir) next(kind string) (string, error) {
	numbers, err := d.numbers(kind)
	if err != nil {
		return "", fmt.Errorf("read the state directory: %w", err)
	}
	return d.numbered(kind, append(numbers, 0)[0]+1), nil
}

// removeOld removes all of a kind but the newest ones.
func (d *Dir) removeOld(kind string) {
	numbers, err := d.numbers(kind)
	if err != nil {
		d.log.Warn("what was set aside long ago cannot be removed", "directory", d.opts.Dir, "error", err)
	}
	for _, n := range numbers[min(kept, len(numbers)):] {
		if err := os.RemoveAll(d.numbered(kind, n)); err != nil {
			d.log.Warn("what was set aside long ago cannot be removed", "directory", d.numbered(kind, n), "error", err)
		}
	}
}

func (d *Dir) numbered(kind string, n int) string {
	return filepath.Join(d.opts.Dir, fmt.Sprintf("%s-%d", kind, n))
}

// numbers are those of what was set aside, the newest first.
func (d *Dir) numbers(kind string) (numbers []int, err error) {
	entries, err := os.ReadDir(d.opts.Dir)
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), kind+"-")
		if n, err := strconv.Atoi(rest); ok && err == nil && n > 0 && n < math.MaxInt {
			numbers = append(numbers, n)
		}
	}
	slices.SortFunc(numbers, func(a, b int) int { return cmp.Compare(b, a) })
	return numbers, err
}
