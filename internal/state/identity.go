package state

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Format is the version of the directory that this package writes, and the newest
// that it reads.
const Format = 1

// MaxShards is the largest number of shards.
const MaxShards = 112

// Errors a caller decides on; Open has changed nothing then.
var (
	// ErrNewer: the directory was made by a newer version of the program.
	ErrNewer = errors.New("the state directory was made by a newer version")
	// ErrShards: the directory was made for another number of shards.
	ErrShards = errors.New("the number of shards of a state directory is fixed")
)

// identity is the content of identity.json.
type identity struct {
	Format   int    `json:"format"`
	Identity string `json:"identity"` // 16 characters: a-z, 2-7
	Shards   int    `json:"shards"`
}

// readIdentity reads identity.json, or makes it in a new directory; made tells
// which.
func readIdentity(dir string, shards int) (id identity, made bool, err error) {
	path := filepath.Join(dir, "identity.json")
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id, err = makeIdentity(path, shards)
		return id, true, err
	}
	if err != nil {
		return id, false, fmt.Errorf("%s cannot be read: %w: stop the server and remove the directory; the cars connect anew then", path, cause(err))
	}
	// Only the version is sure to be there in all formats.
	var version struct {
		Format int `json:"format"`
	}
	if err = json.Unmarshal(data, &version); err == nil && version.Format > Format {
		return id, false, fmt.Errorf("%w: %s has format %d, this version knows formats up to %d: nothing is changed; run the newer version, or remove the directory",
			ErrNewer, path, version.Format, Format)
	}
	if err == nil {
		err = json.Unmarshal(data, &id)
	}
	if err == nil && (id.Format != Format || !validIdentity(id.Identity) || id.Shards < 1 || id.Shards > MaxShards) {
		err = fmt.Errorf(`expected {"format":%d,"identity":"16 characters a-z 2-7","shards":1 to %d}`, Format, MaxShards)
	}
	if err != nil {
		return id, false, fmt.Errorf("%s is damaged: %w: stop the server and remove the directory; the cars connect anew then", path, err)
	}
	if id.Shards != shards {
		return id, false, fmt.Errorf("%w: %s was made with %d, this server uses %d: to change it, run 'external-server stop --final' and remove the directory",
			ErrShards, path, id.Shards, shards)
	}
	return id, false, nil
}

func makeIdentity(path string, shards int) (identity, error) {
	var b [10]byte
	if _, err := rand.Read(b[:]); err != nil {
		return identity{}, err
	}
	id := identity{Format: Format, Identity: strings.ToLower(base32.StdEncoding.EncodeToString(b[:])), Shards: shards}
	data, err := json.Marshal(id)
	if err != nil {
		return id, err
	}
	if err := writeFile(path, append(data, '\n')); err != nil {
		return id, fmt.Errorf("make the state directory: %w", err)
	}
	return id, nil
}

func validIdentity(s string) bool {
	return len(s) == 16 && !strings.ContainsFunc(s, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '2' && r <= '7') })
}
