package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"external-server/internal/fleet"
)

// postgresLock is the advisory lock that makes one server the owner of a
// database.
const (
	postgresLock     = 0x666c656574 // "fleet"
	postgresLockWait = 2 * time.Second
)

// postgresParameters are those of a session unless the URL sets them. The short
// keep-alive lets the database notice within 30 s that a connection is gone,
// which would otherwise hold the lock for hours.
var postgresParameters = map[string]string{
	"application_name":        "external-server",
	"tcp_keepalives_idle":     "15",
	"tcp_keepalives_interval": "5",
	"tcp_keepalives_count":    "3",
}

var postgresMigrations = []string{`
	CREATE TABLE fleet_cars (
		id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, company TEXT NOT NULL, car TEXT NOT NULL, known_at BIGINT NOT NULL,
		UNIQUE (company, car));
	CREATE TABLE fleet_devices (
		car_id BIGINT NOT NULL, module BIGINT NOT NULL, type BIGINT NOT NULL, role TEXT NOT NULL,
		name TEXT NOT NULL, status_at BIGINT NOT NULL,
		PRIMARY KEY (car_id, module, type, role));
	CREATE TABLE fleet_messages (
		id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, car_id BIGINT NOT NULL, kind SMALLINT NOT NULL, at BIGINT NOT NULL,
		position INTEGER NOT NULL, message_type TEXT NOT NULL, module BIGINT NOT NULL, type BIGINT NOT NULL,
		role TEXT NOT NULL, name TEXT NOT NULL, encoding TEXT NOT NULL, data TEXT NOT NULL);
	CREATE UNIQUE INDEX fleet_messages_read ON fleet_messages (car_id, kind, at, position);
	CREATE INDEX fleet_messages_age ON fleet_messages (at);`,
	ageByStorage,
	sharedShards,
}

// openPostgres connects to a database server. The writing connection holds an
// advisory lock as long as it lives, so that a second server is refused, also
// after a reconnect. With sharing other replicas, which share the lock, are not.
func openPostgres(ctx context.Context, dsn string, sharing *sharing) (*sqlStore, error) {
	config, err := parsePostgres(dsn)
	if err != nil {
		return nil, fmt.Errorf("http_api.store: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	for name, value := range postgresParameters {
		if config.RuntimeParams[name] == "" {
			config.RuntimeParams[name] = value
		}
	}
	reading := config.Copy()
	if sharing != nil && config.RuntimeParams["idle_in_transaction_session_timeout"] == "" {
		// A server that stands still in a transaction must not keep its shards from the next
		// owner.
		config.RuntimeParams["idle_in_transaction_session_timeout"] = "2000"
	}
	writer := stdlib.OpenDB(*config)
	writer.SetMaxOpenConns(1)
	writer.SetMaxIdleConns(0) // a given up connection must take its lock with it
	reader := stdlib.OpenDB(*reading)
	reader.SetMaxOpenConns(8)
	reader.SetMaxIdleConns(4)
	reader.SetConnMaxIdleTime(5 * time.Minute)
	s := &sqlStore{
		reader: reader,
		stmts:  map[string]*sql.Stmt{},
		carIDs: map[fleet.CarID]int64{},
		dialect: dialect{
			dollar:     true,
			begin:      "BEGIN",
			migrations: postgresMigrations,
			classify:   classifyPostgres,
			connect:    func(ctx context.Context) (*sql.Conn, error) { return connectPostgres(ctx, writer, sharing != nil) },
			tidy:       func(ctx context.Context, writer *sql.Conn) (int64, int64) { return sizeOfPostgres(ctx, writer), 0 },
		},
		close:   writer.Close,
		sharing: sharing,
	}
	if err := s.open(ctx); err != nil {
		_ = s.Close()
		e := classifyPostgres(err)
		text := fmt.Sprintf("http_api.store: database %q at %s:%d", config.Database, config.Host, config.Port)
		// The library tells of each address in a line of its own.
		cause := strings.Join(strings.Fields(e.Error()), " ")
		if e.Fault.Hint() != "" {
			cause += "; " + e.Fault.Hint()
		}
		return nil, &openError{text: text + ": " + cause, cause: e}
	}
	return s, nil
}

// openError is a one-line text about a fault.
type openError struct {
	text  string
	cause *Error
}

// Error returns the text.
func (e *openError) Error() string { return e.text }

// Unwrap returns the *Error.
func (e *openError) Unwrap() error { return e.cause }

func sizeOfPostgres(ctx context.Context, writer *sql.Conn) (size int64) {
	if writer.QueryRowContext(ctx, `SELECT pg_database_size(current_database())`).Scan(&size) != nil {
		return 0 // what fails here fails elsewhere too, where it is told
	}
	return size
}

func parsePostgres(dsn string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The library's error may repeat the URL; it hides the password only when
		// it could parse it.
		return nil, errors.New("the PostgreSQL URL is not valid; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	return config, nil
}

func connectPostgres(ctx context.Context, db *sql.DB, shared bool) (*sql.Conn, error) {
	lock, other := `SELECT pg_try_advisory_lock($1)`, "another server uses this database; each needs its own"
	if shared {
		lock, other = `SELECT pg_try_advisory_lock_shared($1)`, "a server that belongs to no cluster uses this database"
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	// The connection of a server that has just ended may live a moment longer.
	again := time.NewTicker(postgresLockWait / 20)
	defer again.Stop()
	for deadline := time.Now().Add(postgresLockWait); ; {
		var owner bool
		if err := conn.QueryRowContext(ctx, lock, int64(postgresLock)).Scan(&owner); err != nil {
			_ = conn.Close()
			return nil, err
		}
		if owner {
			return conn, nil
		}
		if time.Now().After(deadline) {
			_ = conn.Close()
			return nil, &Error{Fault: FaultBusy, Reload: true, Err: errors.New(other)}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			_ = conn.Close()
			return nil, ctx.Err()
		}
	}
}

func classifyPostgres(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	e := &Error{Fault: FaultOther, Err: err}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		// No word from the server: the connection is gone.
		e.Fault, e.Reload = FaultUnavailable, true
		return e
	}
	switch {
	case pg.Code == "53100":
		e.Fault = FaultFull
	case pg.Code == "25006", pg.Code == "42501":
		e.Fault = FaultReadOnly
	case pg.Code == "55P03", pg.Code == "57014", strings.HasPrefix(pg.Code, "40"):
		e.Fault = FaultBusy
	case strings.HasPrefix(pg.Code, "XX"):
		e.Fault = FaultCorrupt
	case strings.HasPrefix(pg.Code, "57P"), strings.HasPrefix(pg.Code, "08"), strings.HasPrefix(pg.Code, "53"),
		strings.HasPrefix(pg.Code, "28"), strings.HasPrefix(pg.Code, "3D"):
		e.Fault, e.Reload = FaultUnavailable, true
	}
	return e
}
