package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// look notes and tells whether the directory still keeps what is written to it; err is that
// of the last write of the page. What somebody has removed is made anew.
func (d *Dir) look(err error) {
	if err == nil {
		err = d.whole()
	}
	d.mu.Lock()
	before := d.trouble
	d.trouble = err
	d.mu.Unlock()
	switch {
	case err != nil && before == nil:
		d.log.Warn("the state directory cannot be used any more: the cars are served on, but the next process cannot resume their sessions",
			"directory", d.opts.Dir, "error", err)
	case err == nil && before != nil:
		d.log.Info("the state directory can be used again", "directory", d.opts.Dir)
	}
}

// whole makes the files of the directory anew that were removed under this process. The
// error says what is wrong with the directory, and what to do.
func (d *Dir) whole() error {
	if _, err := os.Lstat(d.opts.Dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is gone: put it back, or restart this server, which makes a new one", d.opts.Dir)
	}
	if _, err := os.Lstat(filepath.Join(d.opts.Dir, "alive")); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s cannot be entered: %w: give this user (uid %d) the right to, for example with 'chmod 700 %s'", d.opts.Dir, cause(err), os.Geteuid(), d.opts.Dir)
	}
	var made []string
	for _, part := range []struct {
		name string
		mend func(path string) (bool, error)
	}{
		{"lock", d.lockWhole}, // first: with another process in the directory nothing is made
		{"alive", d.aliveWhole},
		{"identity.json", d.identityWhole},
	} {
		done, err := part.mend(filepath.Join(d.opts.Dir, part.name))
		if err != nil {
			return err
		}
		if done {
			made = append(made, part.name)
		}
	}
	if len(made) > 0 {
		d.log.Warn("files of the state directory were removed while the server runs, and are made anew: look which program removes them",
			"directory", d.opts.Dir, "files", strings.Join(made, ", "))
	}
	return nil
}

// lockWhole takes the lock again if its file was removed: another process could have
// the directory as well.
func (d *Dir) lockWhole(path string) (made bool, err error) {
	if samePath(d.lock.file, path) {
		return false, nil
	}
	l, who, err := tryLock(d.opts.Dir)
	if err != nil {
		return false, err
	}
	if l == nil {
		return false, fmt.Errorf("%s was removed or replaced, and the directory is in use by %s: two servers must not share it; stop one of them", path, who)
	}
	if err := writeHolder(l, d.opts.Version); err != nil {
		return false, errors.Join(fmt.Errorf("write %s: %w", path, err), l.Close())
	}
	old := d.lock
	d.lock = l
	_ = old.Close() // nothing was written
	return true, nil
}

// aliveWhole makes the page anew if it was removed.
func (d *Dir) aliveWhole(path string) (made bool, err error) {
	if samePath(d.alive, path) {
		return false, nil
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s was replaced: move it away, then this server makes it anew", path)
	}
	f, err := openFile(path)
	if err != nil {
		return false, err
	}
	d.writing.Lock()
	old := d.alive
	d.alive = f
	d.writing.Unlock()
	_ = old.Close() // its writes were checked
	return true, d.write()
}

// identityWhole writes the identity anew if it was removed: the next process would
// begin with another one.
func (d *Dir) identityWhole(path string) (made bool, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, nil // what is there the next process looks at
	}
	data, err := json.Marshal(d.id)
	if err == nil {
		err = writeFile(path, append(data, '\n'))
	}
	if err != nil {
		return false, fmt.Errorf("%s was removed and cannot be made anew: %w", path, err)
	}
	return true, nil
}
