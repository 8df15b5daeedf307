package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// dialect is what differs between the databases.
type dialect struct {
	dollar bool // parameters are $1 instead of ?1
	begin  string
	// migrations by version; each runs in one transaction with the note of its
	// version.
	migrations []string
	classify   func(error) *Error
	// connect opens the single writing connection and takes the ownership of the
	// database.
	connect func(ctx context.Context) (*sql.Conn, error)
	// tidy is Store.Tidy on the writing connection.
	tidy func(ctx context.Context, writer *sql.Conn) (size, log int64)
}

// sqlStore is the part of both stores that is the same SQL.
type sqlStore struct {
	dialect
	reader *sql.DB
	writer *sql.Conn // nil: not connected
	carIDs map[fleet.CarID]int64
	stmts  map[string]*sql.Stmt // of writer
	close  func() error
	// sharing is set when several servers use the database.
	sharing *sharing
}

const rollbackTimeout = 5 * time.Second

var parameter = regexp.MustCompile(`\?(\d+)`)

func (s *sqlStore) q(query string) string {
	if !s.dollar {
		return query
	}
	return parameter.ReplaceAllString(query, "$$$1")
}

func (s *sqlStore) fail(err error) error {
	if err == nil {
		return nil
	}
	e := s.classify(err)
	if e.Reload {
		s.disconnect()
	}
	return e
}

func (s *sqlStore) disconnect() {
	for _, stmt := range s.stmts {
		_ = stmt.Close()
	}
	s.stmts = map[string]*sql.Stmt{}
	s.carIDs = map[fleet.CarID]int64{}
	if s.writer != nil {
		_ = s.writer.Close()
		s.writer = nil
	}
}

// open connects and migrates.
func (s *sqlStore) open(ctx context.Context) error {
	if s.writer != nil {
		return nil
	}
	s.disconnect()
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	s.writer = conn
	if s.sharing != nil {
		return s.share(ctx)
	}
	return s.migrate(ctx)
}

// stmt returns a prepared statement of the writing connection.
func (s *sqlStore) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if st, ok := s.stmts[query]; ok {
		return st, nil
	}
	st, err := s.writer.PrepareContext(ctx, s.q(query))
	if err == nil {
		s.stmts[query] = st
	}
	return st, err
}

func (s *sqlStore) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	st, err := s.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(ctx, args...)
}

// transaction runs f in one transaction of the writing connection. It says BEGIN
// and COMMIT itself: database/sql would prepare every statement anew for each of
// its transactions.
func (s *sqlStore) transaction(ctx context.Context, f func() error) error {
	if s.writer == nil {
		return &Error{Fault: FaultUnavailable, Reload: true, Err: errors.New("not connected")}
	}
	if _, err := s.writer.ExecContext(ctx, s.begin); err != nil {
		return s.fail(err)
	}
	if err := f(); err != nil {
		s.rollback()
		return s.fail(err)
	}
	if _, err := s.writer.ExecContext(ctx, "COMMIT"); err != nil {
		s.rollback()
		e := s.classify(err)
		// Whether it was made is not known for certain.
		e.Reload = true
		s.disconnect()
		return e
	}
	return nil
}

// rollback gives the connection up when it does not work: it may hold a
// transaction. The databases end a transaction themselves on some errors; then
// there is none to roll back, which is as good.
func (s *sqlStore) rollback() {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_, _ = s.writer.ExecContext(ctx, "ROLLBACK")
}

// Apply implements Store.
func (s *sqlStore) Apply(ctx context.Context, batch *Batch) error {
	ids := map[fleet.CarID]int64{}
	err := s.transaction(ctx, func() error {
		if err := s.checkEpochs(ctx, batch.cars); err != nil {
			return err
		}
		var rows [][]any
		for i := range batch.Posts {
			p := &batch.Posts[i]
			id, err := s.applyCar(ctx, p, ids)
			if err != nil {
				return err
			}
			if err := s.applyDevices(ctx, id, p); err != nil {
				return err
			}
			for pos := range p.Messages {
				m := &p.Messages[pos]
				rows = append(rows, []any{id, boolInt(p.Command), p.At, batch.StoredAt, pos, m.Payload.MessageType, m.DeviceID.ModuleID,
					m.DeviceID.Type, m.DeviceID.Role, m.DeviceID.Name, m.Payload.Encoding, string(m.Payload.Data)})
			}
		}
		if err := s.advance(ctx, batch, ids); err != nil {
			return err
		}
		return s.insert(ctx, rows)
	})
	if err == nil {
		for car, id := range ids { // not before: a rolled back id may be given again
			s.carIDs[car] = id
		}
	}
	return err
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *sqlStore) applyCar(ctx context.Context, p *Post, ids map[fleet.CarID]int64) (int64, error) {
	if !p.CarKnown {
		if id, ok := ids[p.Car]; ok {
			return id, nil
		}
		if id, ok := s.carIDs[p.Car]; ok {
			return id, nil
		}
	}
	query, args := `INSERT INTO fleet_cars (company, car, known_at) VALUES (?1, ?2, ?3)
		ON CONFLICT (company, car) DO UPDATE SET known_at = excluded.known_at RETURNING id`, []any{p.Car.Company, p.Car.Car, p.At}
	if s.sharing != nil {
		// A reader that asks for the cars since the newest one it has must miss none, whatever
		// the clocks of the replicas say: the times rise in the order of the transactions.
		if _, err := s.exec(ctx, `SELECT pg_advisory_xact_lock(?1)`, int64(postgresKnownLock)); err != nil {
			return 0, err
		}
		query, args = `INSERT INTO fleet_cars (company, car, known_at, shard)
			VALUES (?1, ?2, GREATEST(?3, (SELECT COALESCE(max(known_at), 0) + 1 FROM fleet_cars)), ?4)
			ON CONFLICT (company, car) DO UPDATE SET known_at = excluded.known_at, shard = excluded.shard RETURNING id`, append(args, s.sharing.ShardOf(p.Car))
	}
	st, err := s.stmt(ctx, query)
	if err != nil {
		return 0, err
	}
	var id int64
	if err := st.QueryRowContext(ctx, args...).Scan(&id); err != nil {
		return 0, err
	}
	ids[p.Car] = id
	return id, nil
}

const touchDevice = `INSERT INTO fleet_devices (car_id, module, type, role, name, status_at)
	VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (car_id, module, type, role)
	DO UPDATE SET status_at = excluded.status_at`

func (s *sqlStore) applyDevices(ctx context.Context, id int64, p *Post) error {
	first := map[httpapi.DeviceKey]bool{}
	for _, d := range p.First {
		first[d.Key()] = true
		if _, err := s.exec(ctx, `DELETE FROM fleet_messages
			WHERE car_id = ?1 AND kind = 1 AND module = ?2 AND type = ?3 AND role = ?4`, id, d.ModuleID, d.Type, d.Role); err != nil {
			return err
		}
	}
	for _, d := range p.Touch {
		query := touchDevice // keeps the first name (HTTP-19)
		if first[d.Key()] {
			query = touchDevice + `, name = excluded.name`
		}
		if _, err := s.exec(ctx, query, id, d.ModuleID, d.Type, d.Role, d.Name, p.At); err != nil {
			return err
		}
	}
	return nil
}

// insertSizes are the numbers of rows in one statement, so that a few prepared
// statements serve every batch with few round trips.
var insertSizes = [...]int{100, 10, 1}

func (s *sqlStore) insert(ctx context.Context, rows [][]any) error {
	for _, size := range insertSizes {
		for len(rows) >= size {
			args := make([]any, 0, size*len(rows[0]))
			for _, row := range rows[:size] {
				args = append(args, row...)
			}
			if _, err := s.exec(ctx, insertQuery(size), args...); err != nil {
				return err
			}
			rows = rows[size:]
		}
	}
	return nil
}

func insertQuery(rows int) string {
	const columns = 12
	var b strings.Builder
	b.WriteString(`INSERT INTO fleet_messages (car_id, kind, at, stored_at, position, message_type, module, type, role, name, encoding, data) VALUES `)
	for r := range rows {
		if r > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('(')
		for c := range columns {
			if c > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "?%d", r*columns+c+1)
		}
		b.WriteByte(')')
	}
	return b.String()
}

// Messages implements Store.
func (s *sqlStore) Messages(ctx context.Context, car fleet.CarID, command bool, since, until int64) ([]httpapi.Message, error) {
	rows, err := s.reader.QueryContext(ctx, s.q(`
		SELECT m.at, m.message_type, m.module, m.type, m.role, m.name, m.encoding, m.data
		FROM fleet_messages m JOIN fleet_cars c ON c.id = m.car_id
		WHERE c.company = ?1 AND c.car = ?2 AND m.kind = ?3 AND m.at BETWEEN ?4 AND ?5
		ORDER BY m.at, m.position`), car.Company, car.Car, boolInt(command), since, until)
	if err != nil {
		return nil, s.readError(ctx, err)
	}
	defer func() { _ = rows.Close() }()
	messages := []httpapi.Message{}
	for rows.Next() {
		var m httpapi.Message
		var data []byte
		if err := rows.Scan(&m.Timestamp, &m.Payload.MessageType, &m.DeviceID.ModuleID, &m.DeviceID.Type, &m.DeviceID.Role,
			&m.DeviceID.Name, &m.Payload.Encoding, &data); err != nil {
			return nil, s.readError(ctx, err)
		}
		m.Payload.Data = data
		messages = append(messages, m)
	}
	if err := rows.Err(); err != nil {
		return nil, s.readError(ctx, err)
	}
	return messages, nil
}

// readError keeps the end of the caller's context apart from a fault of the
// store.
func (s *sqlStore) readError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.classify(err)
}

// Close implements Store.
func (s *sqlStore) Close() error {
	s.disconnect()
	return errors.Join(s.reader.Close(), s.close())
}
