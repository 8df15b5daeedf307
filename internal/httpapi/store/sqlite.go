package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"modernc.org/sqlite"

	"external-server/internal/fleet"
)

// Primary result codes of SQLite.
const (
	sqliteBusy     = 5
	sqliteLocked   = 6
	sqliteReadOnly = 8
	sqliteIOErr    = 10
	sqliteCorrupt  = 11
	sqliteFull     = 13
	sqliteCantOpen = 14
	sqliteNotADB   = 26
)

var sqliteMigrations = []string{`
	CREATE TABLE fleet_cars (
		id INTEGER PRIMARY KEY, company TEXT NOT NULL, car TEXT NOT NULL, known_at INTEGER NOT NULL,
		UNIQUE (company, car));
	CREATE TABLE fleet_devices (
		car_id INTEGER NOT NULL, module INTEGER NOT NULL, type INTEGER NOT NULL, role TEXT NOT NULL,
		name TEXT NOT NULL, status_at INTEGER NOT NULL,
		PRIMARY KEY (car_id, module, type, role)) WITHOUT ROWID;
	CREATE TABLE fleet_messages (
		id INTEGER PRIMARY KEY, car_id INTEGER NOT NULL, kind INTEGER NOT NULL, at INTEGER NOT NULL,
		position INTEGER NOT NULL, message_type TEXT NOT NULL, module INTEGER NOT NULL, type INTEGER NOT NULL,
		role TEXT NOT NULL, name TEXT NOT NULL, encoding TEXT NOT NULL, data TEXT NOT NULL);
	CREATE UNIQUE INDEX fleet_messages_read ON fleet_messages (car_id, kind, at, position);
	CREATE INDEX fleet_messages_age ON fleet_messages (at);`,
	ageByStorage,
}

// openSQLite opens or creates the database file. A lock file beside it makes
// sure that only one server uses it; SQLite's own locks would let two write in
// turn, each with a clock of its own.
func openSQLite(ctx context.Context, path string) (Store, error) {
	describe := func(err error) error {
		var e *Error
		if errors.As(err, &e) && e.Fault.Hint() != "" {
			return fmt.Errorf("http_api.store: %s: %w; %s", path, err, e.Fault.Hint())
		}
		return fmt.Errorf("http_api.store: %s: %w", path, err)
	}
	if err := checkSQLitePath(path); err != nil {
		return nil, describe(err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, describe(err)
	}
	// SQLite would make it readable for all users.
	if f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640); err == nil {
		_ = f.Close()
	}
	writer, err := sql.Open("sqlite", sqliteDSN(path, "journal_mode(WAL)", "synchronous(FULL)", fmt.Sprintf("journal_size_limit(%d)", walKept)))
	if err == nil {
		writer.SetMaxOpenConns(1)
	}
	reader, err2 := sql.Open("sqlite", sqliteDSN(path, "query_only(1)"))
	if err = errors.Join(err, err2); err != nil {
		return nil, errors.Join(describe(err), lock.Close())
	}
	reader.SetMaxOpenConns(4)
	reader.SetMaxIdleConns(4)
	s := &sqlStore{
		reader: reader,
		stmts:  map[string]*sql.Stmt{},
		carIDs: map[fleet.CarID]int64{},
		dialect: dialect{
			begin:      "BEGIN IMMEDIATE",
			migrations: sqliteMigrations,
			classify:   classifySQLite,
			connect:    writer.Conn,
			tidy: func(ctx context.Context, writer *sql.Conn) (int64, int64) {
				truncateWAL(ctx, writer, path)
				return fileSize(path), fileSize(path + "-wal")
			},
		},
		close: func() error { return errors.Join(writer.Close(), lock.Close()) },
	}
	if err := s.open(ctx); err != nil {
		_ = s.Close()
		return nil, describe(classifySQLite(err))
	}
	return s, nil
}

// checkSQLitePath looks at the path without making anything. A folder that is
// missing is not made: it is rather mistyped, or not mounted.
func checkSQLitePath(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return errors.New("is a directory; expected the path of a database file")
	}
	info, err := os.Stat(filepath.Dir(path))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the folder %s does not exist; create it first or correct the path", filepath.Dir(path))
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder; correct the path", filepath.Dir(path))
	}
	return nil
}

// checkSQLite tells what keeps the file from being opened as a database, as far as
// that can be seen without opening it as one: a server may be using it.
func checkSQLite(path string) error {
	if err := checkSQLitePath(path); err != nil {
		return err
	}
	const read, write, search = 4, 2, 1 // of access(2)
	if err := syscall.Access(filepath.Dir(path), write|search); err != nil {
		return fmt.Errorf("the folder %s cannot be written to by this user: %w", filepath.Dir(path), err)
	}
	file, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // it will be made
	case err != nil:
		return err
	}
	defer func() { _ = file.Close() }() // nothing was written
	if err := syscall.Access(path, read|write); err != nil {
		return fmt.Errorf("cannot be written to by this user: %w", err)
	}
	const header = "SQLite format 3\x00"
	begin := make([]byte, len(header))
	n, err := io.ReadFull(file, begin)
	switch {
	case errors.Is(err, io.EOF): // empty: as good as new
		return nil
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case string(begin[:n]) != header:
		return errors.New("is not a SQLite database; expected one, or a path where none is yet")
	}
	return nil
}

// sqliteWait is how long locks of other programs, such as a backup, are waited for.
const sqliteWait = 2 * time.Second

// sqliteDSN returns what opens the file.
func sqliteDSN(path string, pragmas ...string) string {
	query := url.Values{"_pragma": append([]string{fmt.Sprintf("busy_timeout(%d)", sqliteWait.Milliseconds())}, pragmas...)}
	return "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path) + "?" + query.Encode()
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
			return nil, &Error{Fault: FaultReadOnly, Err: err}
		}
		return nil, err
	}
	// A server that was killed may still be ending.
	again := time.NewTicker(sqliteWait / 100)
	defer again.Stop()
	for late := time.Now().Add(sqliteWait); ; <-again.C {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(late) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another server uses this database; each needs its own")
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func classifySQLite(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	e := &Error{Fault: FaultOther, Err: err}
	var coded *sqlite.Error
	if !errors.As(err, &coded) {
		return e
	}
	switch coded.Code() & 0xff {
	case sqliteBusy, sqliteLocked:
		e.Fault = FaultBusy
	case sqliteReadOnly:
		e.Fault = FaultReadOnly
	case sqliteFull:
		e.Fault = FaultFull
	case sqliteCorrupt, sqliteNotADB:
		e.Fault, e.Reload = FaultCorrupt, true
	case sqliteCantOpen:
		e.Fault, e.Reload = FaultUnavailable, true
	case sqliteIOErr:
		// The state of the connection's cache is in doubt after an I/O error.
		e.Fault, e.Reload = FaultUnavailable, true
	}
	return e
}

// walKept is to which size the write-ahead log is cut when it begins anew, in bytes.
const walKept = 4 << 20

// truncateWAL empties a write-ahead log that has grown large because something was
// reading all the time. It does not wait for those who read now: the next sweep tries
// again.
func truncateWAL(ctx context.Context, writer *sql.Conn, path string) {
	if fileSize(path+"-wal") <= 4*walKept {
		return
	}
	// Without effect when it fails: the log goes on growing, which the gauge shows.
	_, _ = writer.ExecContext(ctx, "PRAGMA busy_timeout = 0")
	_, _ = writer.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	_, _ = writer.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d", sqliteWait.Milliseconds()))
}

// fileSize returns the size of a file, 0 if there is none.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
