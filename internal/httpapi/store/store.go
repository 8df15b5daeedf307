package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// Store keeps messages and what must survive a restart. One server owns a store
// at a time: the timestamps of HTTP-10 and the waiting requests live in that
// server. Messages is called from many goroutines, all others from one at a time. Errors are *Error.
type Store interface {
	// Load connects if need be and returns the known cars and devices.
	Load(ctx context.Context) (*State, error)
	// Apply makes one transaction of the batch. When it returns nil, the batch is
	// durable and every later Messages returns it.
	Apply(ctx context.Context, batch *Batch) error
	// Messages returns the messages of a car with a timestamp from since to until,
	// both inclusive, ascending by timestamp and position.
	Messages(ctx context.Context, car fleet.CarID, command bool, since, until int64) ([]httpapi.Message, error)
	// DeleteBefore deletes up to limit messages that were stored before cutoff (ms)
	// and returns how many. Those that seem to have been stored later than now were
	// stored while the clock was ahead: they count as stored now, at most limit of
	// them at a time. It returns true when there may be more of either.
	DeleteBefore(ctx context.Context, cutoff, now int64, limit int) (deleted int, more bool, err error)
	// Forget removes devices that have become unknown (HTTP-18).
	Forget(ctx context.Context, devices []Device) error
	// ForgetCars removes those of the cars that have no message, notes the floor (see
	// State) and returns them, also those that it never had.
	ForgetCars(ctx context.Context, cars []fleet.CarID, floor int64) (gone []fleet.CarID, err error)
	// Tidy makes room that is not needed free, as far as that takes no time, and returns
	// the size of the database and of its write-ahead log in bytes, 0 if not known.
	Tidy(ctx context.Context) (size, log int64)
	// Close releases files and connections.
	Close() error
}

// State is what a server must know before it serves.
type State struct {
	// Last is the highest timestamp, in ms, ever given to a message of each car that
	// has had one, also of those deleted since.
	Last    map[fleet.CarID]int64
	Cars    map[fleet.CarID]int64 // known cars and when they became known, ms
	Devices []Device
	// Stale are devices that are stored and without status, from before the last end of
	// the server.
	Stale []Device
	// Floor is the highest timestamp ever given to a car that has been forgotten, ms.
	Floor int64
}

// Device is a device that has at least one stored status.
type Device struct {
	Car      fleet.CarID
	Device   httpapi.DeviceID
	StatusAt int64 // timestamp of its newest STATUS, or of what made it known, ms
	StoredAt int64 // when that was stored, ms
}

// Batch is a group of posts that become durable together.
type Batch struct {
	// StoredAt is when, in ms. Their age counts from here and not from their
	// timestamps, which go on from a time that a wrong clock has once said.
	StoredAt int64
	Posts    []Post
}

// cars yields the car of each post.
func (b *Batch) cars(yield func(fleet.CarID) bool) {
	for i := range b.Posts {
		if !yield(b.Posts[i].Car) {
			return
		}
	}
}

// Post is one accepted POST.
type Post struct {
	Car      fleet.CarID
	Command  bool
	At       int64 // timestamp of all its messages, ms
	Messages []httpapi.Message
	// CarKnown says that the car becomes known with this post.
	CarKnown bool
	// First lists devices whose first status this is: their stored commands go
	// (HTTP-15).
	First []httpapi.DeviceID
	// Touch lists devices whose newest status must be noted, First included.
	Touch []httpapi.DeviceID
}

// TouchInterval is how far, in ms, the noted time of a device's newest status may
// lag behind its stored statuses; it saves one more write per status.
const TouchInterval = 60_000

// Fault classifies a store's error by what an operator has to do.
type Fault string

// Faults of a store.
const (
	FaultBusy        Fault = "busy"        // another program holds a lock
	FaultFull        Fault = "full"        // no space left
	FaultReadOnly    Fault = "read_only"   // may not be written
	FaultCorrupt     Fault = "corrupt"     // damaged or not a database
	FaultUnavailable Fault = "unavailable" // no connection
	FaultLoading     Fault = "loading"     // none: it is being opened and loaded after the start
	FaultMoved       Fault = "moved"       // none: another replica of the cluster serves the cars
	FaultOther       Fault = "other"
)

// Error is an error of a store.
type Error struct {
	Fault Fault
	// Reload says that it is not known whether the transaction was made: the
	// state must be loaded again before the next one.
	Reload bool
	Shards []int // with FaultMoved: those that another replica has
	Err    error
}

// Error returns the fault with the cause.
func (e *Error) Error() string { return fmt.Sprintf("store %s: %v", e.Fault, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what an operator can do, "" if there is nothing to say.
func (f Fault) Hint() string {
	switch f {
	case FaultBusy:
		return "end the other program that holds the database"
	case FaultFull:
		return "free disk space or shorten the retention"
	case FaultReadOnly:
		return "check the owner and mode of the database file and its directory, or the role's rights"
	case FaultCorrupt:
		return "stop the server, move the database file away (a new one is created) or restore a backup"
	case FaultUnavailable:
		return "check that the database runs and that the address and password are right"
	}
	return ""
}

// AsError returns the *Error in err, or one that holds it.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Fault: FaultOther, Err: err}
}

// Check tells what keeps Open from opening the store, as far as that can be
// seen without a network and without any effect. Errors do not repeat the password
// of a URL.
func Check(name string) error {
	if path, ok := strings.CutPrefix(name, "sqlite:"); ok {
		if err := checkSQLite(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	_, err := parsePostgres(name)
	return err
}

// Open opens the store named by the configuration: "sqlite:PATH" or a
// "postgres://" or "postgresql://" URL. It creates or migrates the schema. Errors
// do not repeat the password of the URL.
func Open(ctx context.Context, name string) (Store, error) {
	switch {
	case strings.HasPrefix(name, "sqlite:") && len(name) > len("sqlite:"):
		return openSQLite(ctx, strings.TrimPrefix(name, "sqlite:"))
	case strings.HasPrefix(name, "postgres://"), strings.HasPrefix(name, "postgresql://"):
		store, err := openPostgres(ctx, name, nil)
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	scheme, _, _ := strings.Cut(name, ":")
	return nil, fmt.Errorf("http_api.store: unknown kind of store %q; expected sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE", scheme)
}
