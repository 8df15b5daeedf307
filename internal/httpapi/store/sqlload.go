package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// ageByStorage is version 2 of the schema in both kinds of database. The age of a
// message is not that of its timestamp, which a clock that was once wrong may have
// put years ahead; and such a timestamp is the concern of its car alone. Of a car
// without messages only the highest timestamp of all is known.
const ageByStorage = `
	ALTER TABLE fleet_messages ADD COLUMN stored_at BIGINT NOT NULL DEFAULT 0;
	UPDATE fleet_messages SET stored_at = at;
	DROP INDEX fleet_messages_age;
	CREATE INDEX fleet_messages_age ON fleet_messages (stored_at, id);
	ALTER TABLE fleet_cars ADD COLUMN last_at BIGINT NOT NULL DEFAULT 0;
	UPDATE fleet_cars SET last_at = COALESCE((SELECT value FROM fleet_meta WHERE name = 'high'), 0)
		WHERE NOT EXISTS (SELECT 1 FROM fleet_messages m WHERE m.car_id = fleet_cars.id AND m.kind IN (0, 1));
	DELETE FROM fleet_meta WHERE name = 'high';`

// Load implements Store.
func (s *sqlStore) Load(ctx context.Context) (*State, error) {
	if err := s.open(ctx); err != nil {
		e := s.classify(err)
		s.disconnect()
		return nil, e
	}
	if s.sharing != nil { // claim returns the cars
		return &State{}, nil
	}
	state, err := s.loadState(ctx, "")
	if err != nil {
		return nil, s.fail(err)
	}
	return state, nil
}

// loadState loads what is known of the cars c for which the condition holds.
func (s *sqlStore) loadState(ctx context.Context, where string) (*State, error) {
	state := &State{Last: map[fleet.CarID]int64{}, Cars: map[fleet.CarID]int64{}}
	if err := s.loadCars(ctx, state, where); err != nil {
		return nil, err
	}
	if err := s.loadDevices(ctx, state, where); err != nil {
		return nil, err
	}
	return state, nil
}

// loadCars loads every car that has had a message and is not forgotten.
func (s *sqlStore) loadCars(ctx context.Context, state *State, where string) error {
	err := s.rows(ctx, `
		SELECT c.id, c.company, c.car, c.last_at,
			(SELECT max(m.at) FROM fleet_messages m WHERE m.car_id = c.id AND m.kind = 0),
			(SELECT max(m.at) FROM fleet_messages m WHERE m.car_id = c.id AND m.kind = 1)
		FROM fleet_cars c`+where, func(scan func(...any) error) error {
		var id, deleted int64
		var car fleet.CarID
		var status, command sql.NullInt64
		if err := scan(&id, &car.Company, &car.Car, &deleted, &status, &command); err != nil {
			return err
		}
		s.carIDs[car] = id
		state.Last[car] = max(deleted, status.Int64, command.Int64)
		return nil
	})
	if err != nil {
		return err
	}
	return s.rows(ctx, `SELECT value FROM fleet_meta WHERE name = 'floor'`, func(scan func(...any) error) error { return scan(&state.Floor) })
}

// window is a span of timestamps of one car, both ends inclusive.
type window struct{ car, from, to int64 }

// windowsPerQuery bounds the length of a statement.
const windowsPerQuery = 200

// loadDevices loads the known devices. The noted time of the newest status may lag
// (TouchInterval), so that the messages from there on are looked at, each once, however
// many devices the car has. A device whose statuses are all gone is not known, but
// stale. A message that is no STATUS counts only if it is what made the device known
// (HTTP-18).
func (s *sqlStore) loadDevices(ctx context.Context, state *State, where string) error {
	type key struct {
		car int64
		httpapi.DeviceKey
	}
	devices := map[key]*Device{}
	var order []key
	var windows []window
	known := map[fleet.CarID]int64{}
	err := s.rows(ctx, `SELECT d.car_id, c.company, c.car, c.known_at, d.module, d.type, d.role, d.name, d.status_at
		FROM fleet_devices d JOIN fleet_cars c ON c.id = d.car_id`+where+` ORDER BY d.car_id, d.status_at`, func(scan func(...any) error) error {
		var car, knownAt, noted int64
		d := &Device{}
		if err := scan(&car, &d.Car.Company, &d.Car.Car, &knownAt, &d.Device.ModuleID, &d.Device.Type, &d.Device.Role, &d.Device.Name, &noted); err != nil {
			return err
		}
		k := key{car, d.Device.Key()}
		devices[k], known[d.Car] = d, knownAt
		order = append(order, k)
		if n := len(windows); n > 0 && windows[n-1].car == car && noted <= windows[n-1].to+1 {
			windows[n-1].to = noted + TouchInterval
		} else {
			windows = append(windows, window{car, noted, noted + TouchInterval})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(windows, windowsPerQuery) {
		err := s.rows(ctx, newestStatuses(part), func(scan func(...any) error) error {
			var k key
			var at, storedAt int64
			if err := scan(&k.car, &k.Module, &k.Type, &k.Role, &at, &storedAt); err != nil {
				return err
			}
			if d := devices[k]; d != nil {
				d.StatusAt, d.StoredAt = at, storedAt
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, k := range order {
		d := devices[k]
		if d.StatusAt == 0 {
			state.Stale = append(state.Stale, *d)
			continue
		}
		state.Cars[d.Car] = known[d.Car]
		state.Devices = append(state.Devices, *d)
	}
	return nil
}

// newestStatuses returns the query of the newest status of each device in the windows.
// CROSS JOIN keeps the order of the tables in SQLite.
func newestStatuses(windows []window) string {
	var b strings.Builder
	b.WriteString(`SELECT n.car_id, n.module, n.type, n.role, max(n.at), max(n.stored_at) FROM (VALUES `)
	for i, w := range windows {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "(%d,%d,%d)", w.car, w.from, w.to)
	}
	fmt.Fprintf(&b, `) AS w CROSS JOIN fleet_messages n CROSS JOIN fleet_devices d
		WHERE n.car_id = w.column1 AND n.kind = 0 AND n.at BETWEEN w.column2 AND w.column3
		AND d.car_id = n.car_id AND d.module = n.module AND d.type = n.type AND d.role = n.role
		AND n.at BETWEEN d.status_at AND d.status_at + %d AND (n.message_type = 'STATUS' OR n.at = d.status_at)
		GROUP BY n.car_id, n.module, n.type, n.role`, TouchInterval)
	return b.String()
}

// rows runs a query on the writing connection and calls each for every row.
func (s *sqlStore) rows(ctx context.Context, query string, each func(scan func(...any) error) error) error {
	rows, err := s.writer.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
