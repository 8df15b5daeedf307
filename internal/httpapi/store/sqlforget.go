package store

import (
	"context"
	"slices"

	"external-server/internal/fleet"
)

// DeleteBefore implements Store. A car whose newest message goes keeps its timestamp:
// what it is given later must be higher (HTTP-10).
func (s *sqlStore) DeleteBefore(ctx context.Context, cutoff, now int64, limit int) (int, bool, error) {
	var early, deleted int64
	future := now
	if s.sharing != nil {
		future += skewAllowed
	}
	err := s.transaction(ctx, func() (err error) {
		if mine, err := s.mayDelete(ctx); err != nil || !mine {
			return err
		}
		if early, err = s.affected(ctx, `UPDATE fleet_messages SET stored_at = ?1 WHERE id IN
			(SELECT id FROM fleet_messages WHERE stored_at > ?3 ORDER BY stored_at, id LIMIT ?2)`, now, limit, future); err != nil {
			return err
		}
		if _, err = s.exec(ctx, `UPDATE fleet_cars SET last_at = gone.at FROM
			(SELECT car_id, max(at) AS at FROM
				(SELECT car_id, at FROM fleet_messages WHERE stored_at < ?1 ORDER BY stored_at, id LIMIT ?2) AS part GROUP BY car_id) AS gone
			WHERE fleet_cars.id = gone.car_id AND fleet_cars.last_at < gone.at AND NOT EXISTS
				(SELECT 1 FROM fleet_messages m WHERE m.car_id = gone.car_id AND m.kind IN (0, 1) AND m.at > gone.at)`, cutoff, limit); err != nil {
			return err
		}
		deleted, err = s.affected(ctx, `DELETE FROM fleet_messages WHERE id IN
			(SELECT id FROM fleet_messages WHERE stored_at < ?1 ORDER BY stored_at, id LIMIT ?2)`, cutoff, limit)
		return err
	})
	return int(deleted), max(early, deleted) == int64(limit), err
}

// mayDelete tells, for the rest of the transaction, whether this server deletes old
// messages; of several servers one does at a time.
func (s *sqlStore) mayDelete(ctx context.Context) (mine bool, err error) {
	if s.sharing == nil {
		return true, nil
	}
	st, err := s.stmt(ctx, `SELECT pg_try_advisory_xact_lock(?1)`)
	if err != nil {
		return false, err
	}
	err = st.QueryRowContext(ctx, int64(postgresSweepLock)).Scan(&mine)
	return mine, err
}

func (s *sqlStore) affected(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := s.exec(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Forget implements Store.
func (s *sqlStore) Forget(ctx context.Context, devices []Device) error {
	return s.transaction(ctx, func() error {
		err := s.checkEpochs(ctx, func(yield func(fleet.CarID) bool) {
			for _, d := range devices {
				if !yield(d.Car) {
					return
				}
			}
		})
		if err != nil {
			return err
		}
		for _, d := range devices {
			if _, err := s.exec(ctx, `DELETE FROM fleet_devices WHERE module = ?1 AND type = ?2 AND role = ?3
				AND car_id IN (SELECT id FROM fleet_cars WHERE company = ?4 AND car = ?5)`,
				d.Device.ModuleID, d.Device.Type, d.Device.Role, d.Car.Company, d.Car.Car); err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetCars implements Store.
func (s *sqlStore) ForgetCars(ctx context.Context, cars []fleet.CarID, floor int64) (gone []fleet.CarID, err error) {
	err = s.transaction(ctx, func() error {
		if err := s.checkEpochs(ctx, slices.Values(cars)); err != nil {
			return err
		}
		for _, car := range cars {
			if _, err := s.exec(ctx, `DELETE FROM fleet_cars WHERE company = ?1 AND car = ?2 AND NOT EXISTS
				(SELECT 1 FROM fleet_messages m WHERE m.car_id = fleet_cars.id AND m.kind IN (0, 1))`, car.Company, car.Car); err != nil {
				return err
			}
			left, err := s.stmt(ctx, `SELECT count(*) FROM fleet_cars WHERE company = ?1 AND car = ?2`)
			if err != nil {
				return err
			}
			var n int
			if err := left.QueryRowContext(ctx, car.Company, car.Car).Scan(&n); err != nil {
				return err
			}
			if n == 0 {
				gone = append(gone, car)
			}
		}
		_, err := s.exec(ctx, `INSERT INTO fleet_meta (name, value) VALUES ('floor', ?1)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE fleet_meta.value < excluded.value`, floor)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, car := range gone {
		delete(s.carIDs, car)
	}
	return gone, nil
}

// Tidy implements Store.
func (s *sqlStore) Tidy(ctx context.Context) (size, log int64) {
	if s.writer == nil {
		return 0, 0
	}
	return s.tidy(ctx, s.writer)
}
