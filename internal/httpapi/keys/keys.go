// Package keys has the API keys of the HTTP API (HTTP-2): the file that holds their hashes,
// which the command line changes, and the Ring with which a running server checks keys and
// follows the file.
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Key is one entry of the keys file. The key itself is not kept: it has 256
// random bits, so its SHA-256 cannot be turned back by guessing; a slow password
// hash would only make every request slow.
type Key struct {
	Name    string    `json:"name"`
	SHA256  string    `json:"sha256"` // hex
	Created time.Time `json:"created"`
}

type content struct {
	Keys []Key `json:"keys"`
}

const maxFile = 4 << 20

var keyName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

// Read returns the keys of a file in the order in which they were added. A
// file that does not exist has none.
func Read(path string) ([]Key, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keys file: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("keys file: %w", err)
	}
	return parse(path, text)
}

func parse(path string, text []byte) ([]Key, error) {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	var file content
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("keys file %s: %w; expected what 'external-server http-api key add' writes", path, err)
	}
	for i, k := range file.Keys {
		if sum, err := hex.DecodeString(k.SHA256); err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("keys file %s: keys[%d].sha256 is not the hexadecimal form of a SHA-256 sum", path, i)
		}
		if !keyName.MatchString(k.Name) {
			return nil, fmt.Errorf("keys file %s: keys[%d].name does not match %s", path, i, keyName)
		}
	}
	return file.Keys, nil
}

// Add makes a new key, notes its hash under the name and returns the key: it
// cannot be shown again. A name that exists is an error. A running server takes
// the change over within seconds.
func Add(path, name string, now time.Time) (key string, err error) {
	if !keyName.MatchString(name) {
		return "", fmt.Errorf("key name %q: expected 1 to 64 letters, digits or . _ @ -", name)
	}
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	key = base64.RawURLEncoding.EncodeToString(random[:])
	sum := sha256.Sum256([]byte(key))
	err = change(path, func(keys []Key) ([]Key, error) {
		for _, k := range keys {
			if k.Name == name {
				return nil, fmt.Errorf("keys file %s: there is a key named %q already; remove it first or choose another name", path, name)
			}
		}
		return append(keys, Key{Name: name, SHA256: hex.EncodeToString(sum[:]), Created: now.UTC().Truncate(time.Second)}), nil
	})
	if err != nil {
		return "", err
	}
	return key, nil
}

// Remove removes the key of that name.
func Remove(path, name string) error {
	return change(path, func(keys []Key) ([]Key, error) {
		for i, k := range keys {
			if k.Name == name {
				return append(keys[:i:i], keys[i+1:]...), nil
			}
		}
		return nil, fmt.Errorf("keys file %s: there is no key named %q", path, name)
	})
}

// change replaces the file as a whole, under a lock, so that a reader never
// sees half of it and two changes at a time do not lose one.
func change(path string, change func([]Key) ([]Key, error)) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("keys file: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("keys file: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	keys, err := Read(path)
	if err != nil {
		return err
	}
	if keys, err = change(keys); err != nil {
		return err
	}
	text, err := json.MarshalIndent(content{Keys: keys}, "", "  ")
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keys file: %w", err)
	}
	_, err = temporary.Write(append(text, '\n'))
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = giveTo(path, temporary.Name())
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keys file: %w", err), os.Remove(temporary.Name()))
	}
	return nil
}

// giveTo gives the temporary file to who may read the keys file, because the server
// may run as another user than the one who adds keys: as before when there is one,
// else also to the group of its folder, if it is another than ours.
func giveTo(path, temporary string) error {
	owner := func(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }
	if info, err := os.Stat(path); err == nil {
		_ = os.Chown(temporary, int(owner(info).Uid), int(owner(info).Gid)) // only root may
		return os.Chmod(temporary, info.Mode().Perm())
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	group := owner(dir).Gid
	if int(group) == os.Getegid() || os.Chown(temporary, -1, int(group)) != nil {
		return nil // for ourselves only
	}
	return os.Chmod(temporary, 0o640)
}

// Ring checks keys against a file and follows its changes. A file that cannot
// be read any more leaves the old keys in force: neither a typing error nor a
// full disk locks the fleet out.
type Ring struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	sums    [][sha256.Size]byte
	names   []string // of sums
	checked time.Time
	stamp   fileStamp
	failed  bool
}

type fileStamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

const checkInterval = time.Second

// NewRing reads a keys file. Its errors name the key of the configuration.
func NewRing(path string, log *slog.Logger) (*Ring, error) {
	k := &Ring{path: path, log: log}
	if err := k.load(); err != nil {
		return nil, fmt.Errorf("http_api.keys_file: %w", err)
	}
	k.checked = time.Now()
	if len(k.sums) == 0 {
		log.Warn("no API keys: every request will be refused until 'external-server http-api key add NAME' has made one", "keys_file", path)
	}
	return k, nil
}

func (k *Ring) load() error {
	stamp := stampOf(k.path)
	keys, err := Read(k.path)
	if err != nil {
		return err
	}
	k.sums, k.names = make([][sha256.Size]byte, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		k.names[i] = key.Name
		if _, err := hex.Decode(k.sums[i][:], []byte(key.SHA256)); err != nil {
			return err
		}
	}
	k.stamp = stamp
	return nil
}

func stampOf(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	s := fileStamp{modified: info.ModTime(), size: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = stat.Ino
	}
	return s
}

// Find returns the name of a key if it is one of the file's. It compares in constant time.
func (k *Ring) Find(key string) (name string, ok bool) {
	sum := sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.checked) >= checkInterval {
		k.checked = time.Now()
		k.refresh()
	}
	found := -1
	for i := range k.sums {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(k.sums[i][:], sum[:]), i, found)
	}
	if found < 0 {
		return "", false
	}
	return k.names[found], true
}

func (k *Ring) refresh() {
	if stampOf(k.path) == k.stamp {
		return
	}
	before := len(k.sums)
	old, names := k.sums, k.names
	if err := k.load(); err != nil {
		k.sums, k.names = old, names
		if !k.failed {
			k.log.Warn("the changed keys file cannot be used; the keys read before stay valid", "error", err)
		}
		k.failed = true
		return
	}
	k.failed = false
	k.log.Info("API keys were read again", "keys_file", k.path, "before", before, "now", len(k.sums))
}
