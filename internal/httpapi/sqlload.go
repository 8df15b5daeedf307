package httpapi

import (
	"context"
	"database/sql"

	"external-server/internal/fleet"
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
func (s *sqlStore) Load(ctx context.Context) (*StoredState, error) {
	if err := s.open(ctx); err != nil {
		e := s.classify(err)
		s.disconnect()
		return nil, e
	}
	state := &StoredState{Last: map[fleet.CarID]int64{}, Cars: map[fleet.CarID]int64{}}
	if err := s.loadCars(ctx, state); err != nil {
		return nil, s.fail(err)
	}
	if err := s.loadDevices(ctx, state); err != nil {
		return nil, s.fail(err)
	}
	return state, nil
}

// loadCars loads every car that has ever had a message.
func (s *sqlStore) loadCars(ctx context.Context, state *StoredState) error {
	rows, err := s.writer.QueryContext(ctx, `
		SELECT c.id, c.company, c.car, c.last_at,
			(SELECT max(m.at) FROM fleet_messages m WHERE m.car_id = c.id AND m.kind = 0),
			(SELECT max(m.at) FROM fleet_messages m WHERE m.car_id = c.id AND m.kind = 1)
		FROM fleet_cars c`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, deleted int64
		var car fleet.CarID
		var status, command sql.NullInt64
		if err := rows.Scan(&id, &car.Company, &car.Car, &deleted, &status, &command); err != nil {
			return err
		}
		s.carIDs[car] = id
		state.Last[car] = max(deleted, status.Int64, command.Int64)
	}
	return rows.Err()
}

// loadDevices loads the known devices and their cars.
func (s *sqlStore) loadDevices(ctx context.Context, state *StoredState) error {
	// The noted time of the newest status may lag (touchInterval); a device whose
	// statuses are all gone is not known. A message that is no STATUS counts only
	// if it is what made the device known (HTTP-18).
	rows, err := s.writer.QueryContext(ctx, s.q(`
		SELECT c.company, c.car, c.known_at, d.module, d.type, d.role, d.name, m.at, m.stored_at
		FROM fleet_devices d JOIN fleet_cars c ON c.id = d.car_id
		JOIN fleet_messages m ON m.id = (SELECT n.id FROM fleet_messages n WHERE n.car_id = d.car_id AND n.kind = 0
			AND n.at >= d.status_at AND n.at <= d.status_at + ?1
			AND (n.message_type = 'STATUS' OR n.at = d.status_at)
			AND n.module = d.module AND n.type = d.type AND n.role = d.role
			ORDER BY n.at DESC, n.position DESC LIMIT 1)`), touchInterval)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var known int64
		var d StoredDevice
		if err := rows.Scan(&d.Car.Company, &d.Car.Car, &known, &d.Device.ModuleID, &d.Device.Type, &d.Device.Role, &d.Device.Name,
			&d.StatusAt, &d.StoredAt); err != nil {
			return err
		}
		state.Cars[d.Car] = known
		state.Devices = append(state.Devices, d)
	}
	return rows.Err()
}
