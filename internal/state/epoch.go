package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// epochs says under which epochs of its shard a journal was written.
type epochs struct {
	Epoch  int64 `json:"epoch"`
	Before int64 `json:"before"` // the one before, which the broker knows until the connection is made; 0: none
}

// SetEpoch notes under which epoch the journal of the shard goes on, when several servers
// share the cars. It is called when everything that the journal needs is written, and
// before the epoch is told to anybody.
func (d *Dir) SetEpoch(shard int, epoch int64) error {
	before, err := d.epochs(shard)
	if err != nil {
		before = epochs{}
	}
	if before.Epoch == epoch {
		return nil
	}
	data, err := json.Marshal(epochs{Epoch: epoch, Before: before.Epoch})
	if err == nil {
		err = writeFile(d.epochPath(shard), append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("note the epoch of shard %d: %w", shard, err)
	}
	return nil
}

// Under tells whether the journal of the shard was written to its end under the epoch, which
// is the newest one that the broker knows. An unreadable note counts as no.
func (d *Dir) Under(shard int, epoch int64) bool {
	e, err := d.epochs(shard)
	return err == nil && epoch > 0 && (e.Epoch == epoch || e.Before == epoch)
}

// epochs reads what SetEpoch has noted; without error, nothing noted is zero.
func (d *Dir) epochs(shard int) (e epochs, err error) {
	data, err := readFile(d.epochPath(shard))
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	return e, err
}

// forgetEpoch removes the note of a journal that counts no more.
func (d *Dir) forgetEpoch(shard int) error {
	err := os.Remove(d.epochPath(shard))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d *Dir) epochPath(shard int) string {
	return filepath.Join(d.shardsPath(), fmt.Sprintf("%02d.epoch", shard))
}
