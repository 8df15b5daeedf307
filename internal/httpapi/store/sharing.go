package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// Sharing makes a store one that several servers, the replicas of a cluster, use at a
// time. Each car belongs to a shard, and each shard to the replica that has noted the
// highest epoch for it: every transaction checks the epochs of its cars' shards and fails
// when one of them is not this replica's any more.
type Sharing struct {
	Replica string // this one
	Shards  int
	ShardOf func(fleet.CarID) int
}

// sharing is what a store knows that is shared.
type sharing struct {
	Sharing
	epochs map[int]int64 // of the shards that this replica has claimed
}

// checkSharedStore tells what keeps a store from being shared by the replicas of a
// cluster, as far as its name tells.
func checkSharedStore(name string) error {
	if strings.HasPrefix(name, "sqlite:") {
		return fmt.Errorf("http_api.store: the replicas of a cluster need a store that they share; expected postgres://USER:PASSWORD@HOST/DATABASE, not a SQLite file")
	}
	return nil
}

// OpenShared opens the store as one of several servers that use it.
func OpenShared(ctx context.Context, name string, s Sharing) (Shared, error) {
	if err := checkSharedStore(name); err != nil {
		return nil, err
	}
	store, err := openPostgres(ctx, name, &sharing{Sharing: s, epochs: map[int]int64{}})
	if err != nil {
		return nil, err
	}
	return store, nil
}

// Shared is a Store of several servers. The methods that Store does not have may be
// called from many goroutines, except Claim and Release.
type Shared interface {
	Store
	// Claim notes the epoch of a shard and returns what is known of its cars. From then on
	// no transaction of an earlier owner is made any more. FaultMoved says that another
	// replica has noted an epoch that is not lower.
	Claim(ctx context.Context, shard int, epoch int64) (*State, error)
	// Release forgets the claim: transactions of the shard's cars fail.
	Release(shard int)
	// Epoch returns the epoch of a shard and the replica that has noted it; 0 and "" when
	// there is none.
	Epoch(ctx context.Context, shard int) (epoch int64, replica string, err error)
	// KnownCars returns the cars that became known at since or later, in the order in
	// which they became known.
	KnownCars(ctx context.Context, since int64) ([]httpapi.Car, error)
	// LastKnownAt returns when the newest of the known cars became known, ms; 0 without any.
	LastKnownAt(ctx context.Context) (int64, error)
	// KnownDevices returns the known devices of a car.
	KnownDevices(ctx context.Context, car fleet.CarID) ([]httpapi.DeviceID, error)
}

// Advisory locks of a shared database, beside postgresLock.
const (
	postgresMigrateLock = postgresLock + 1 // while the schema is brought up to date
	postgresSweepLock   = postgresLock + 2 // while old messages are deleted
	postgresKnownLock   = postgresLock + 3 // while a car becomes known
)

// skewAllowed is how far, in ms, the clocks of replicas may differ before what another
// one has stored counts as stored in the future.
const skewAllowed = 60_000

// sharedShards is version 3 of the schema of PostgreSQL: shards with the epoch of their
// owner, and the cars of each. The shard of a car is unknown until a cluster uses the
// database.
const sharedShards = `
	CREATE TABLE fleet_shards (shard INTEGER PRIMARY KEY, epoch BIGINT NOT NULL, replica TEXT NOT NULL);
	ALTER TABLE fleet_cars ADD COLUMN shard INTEGER;
	ALTER TABLE fleet_cars SET (fillfactor = 50);
	CREATE INDEX fleet_cars_shard ON fleet_cars (shard);
	CREATE INDEX fleet_cars_known ON fleet_cars (known_at);`

// share brings a database that was just connected to into the state that a cluster
// needs. Replicas that start together do it one after the other.
func (s *sqlStore) share(ctx context.Context) error {
	if _, err := s.writer.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(postgresMigrateLock)); err != nil {
		return err
	}
	err := s.migrate(ctx)
	if err == nil {
		err = s.fillShards(ctx)
	}
	_, unlock := s.writer.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(postgresMigrateLock))
	return errors.Join(err, unlock)
}

// fillShards notes the shard of cars that were stored without, or by a cluster with
// another number of shards.
func (s *sqlStore) fillShards(ctx context.Context) error {
	const part = 5000
	var before int
	err := s.writer.QueryRowContext(ctx, `SELECT value FROM fleet_meta WHERE name = 'shards'`).Scan(&before)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if before != s.sharing.Shards {
		if _, err := s.writer.ExecContext(ctx, `UPDATE fleet_cars SET shard = NULL WHERE shard IS NOT NULL`); err != nil {
			return err
		}
		if _, err := s.writer.ExecContext(ctx, `INSERT INTO fleet_meta (name, value) VALUES ('shards', $1)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, s.sharing.Shards); err != nil {
			return err
		}
	}
	for {
		var ids, shards []int64
		err := s.rows(ctx, fmt.Sprintf(`SELECT id, company, car FROM fleet_cars WHERE shard IS NULL LIMIT %d`, part), func(scan func(...any) error) error {
			var id int64
			var car fleet.CarID
			if err := scan(&id, &car.Company, &car.Car); err != nil {
				return err
			}
			ids, shards = append(ids, id), append(shards, int64(s.sharing.ShardOf(car)))
			return nil
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		if _, err := s.writer.ExecContext(ctx, `UPDATE fleet_cars AS c SET shard = v.shard
			FROM unnest($1::bigint[], $2::bigint[]) AS v(id, shard) WHERE c.id = v.id`, ids, shards); err != nil {
			return err
		}
	}
}

// movedError says that shards belong to another replica.
func movedError(shards []int, err error) *Error {
	return &Error{Fault: FaultMoved, Shards: shards, Err: err}
}

// Claim implements Shared. The lock on the shard's row waits for transactions under
// the earlier epoch, but not long: the database ends one that its server has left alone.
func (s *sqlStore) Claim(ctx context.Context, shard int, epoch int64) (*State, error) {
	var known int64
	var replica string
	err := s.transaction(ctx, func() error {
		if _, err := s.writer.ExecContext(ctx, `SET LOCAL lock_timeout = '250ms'`); err != nil {
			return err
		}
		if _, err := s.exec(ctx, `INSERT INTO fleet_shards (shard, epoch, replica) VALUES (?1, 0, '') ON CONFLICT (shard) DO NOTHING`, shard); err != nil {
			return err
		}
		st, err := s.stmt(ctx, `SELECT epoch, replica FROM fleet_shards WHERE shard = ?1 FOR UPDATE`)
		if err != nil {
			return err
		}
		if err := st.QueryRowContext(ctx, shard).Scan(&known, &replica); err != nil {
			return err
		}
		if known > epoch || known == epoch && replica != s.sharing.Replica {
			return movedError([]int{shard}, fmt.Errorf("the replica %s has epoch %d of shard %d, this one epoch %d", replica, known, shard, epoch))
		}
		_, err = s.exec(ctx, `UPDATE fleet_shards SET epoch = ?2, replica = ?3 WHERE shard = ?1`, shard, epoch, s.sharing.Replica)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.sharing.epochs[shard] = epoch
	for car := range s.carIDs { // another owner may have forgotten and stored it anew
		if s.sharing.ShardOf(car) == shard {
			delete(s.carIDs, car)
		}
	}
	state, err := s.loadState(ctx, fmt.Sprintf(" WHERE c.shard = %d", shard))
	if err != nil {
		return nil, s.fail(err)
	}
	return state, nil
}

// Release implements Shared.
func (s *sqlStore) Release(shard int) { delete(s.sharing.epochs, shard) }

// checkEpochs makes sure, until the end of the transaction, that the shards of the cars
// are this replica's.
func (s *sqlStore) checkEpochs(ctx context.Context, cars func(yield func(fleet.CarID) bool)) error {
	if s.sharing == nil {
		return nil
	}
	stale := map[int]bool{}
	for car := range cars {
		stale[s.sharing.ShardOf(car)] = true
	}
	shards := make([]int64, 0, len(stale))
	for n := range stale {
		shards = append(shards, int64(n))
	}
	slices.Sort(shards)
	st, err := s.stmt(ctx, `SELECT shard, epoch FROM fleet_shards WHERE shard = ANY(?1::bigint[]) ORDER BY shard FOR SHARE`)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, shards)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var n int
		var epoch int64
		if err := rows.Scan(&n, &epoch); err != nil {
			return err
		}
		if ours, claimed := s.sharing.epochs[n]; claimed && ours == epoch {
			delete(stale, n)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(stale) == 0 {
		return nil
	}
	moved := make([]int, 0, len(stale))
	for n := range stale {
		moved = append(moved, n)
	}
	slices.Sort(moved)
	return movedError(moved, fmt.Errorf("the shards %v belong to another replica by now", moved))
}

// advance notes the newest timestamp of each car of a batch under the lock of its row,
// and fails if the row has one that is not older: no timestamp is given twice, whatever
// the clocks of two owners say.
func (s *sqlStore) advance(ctx context.Context, batch *Batch, ids map[fleet.CarID]int64) error {
	if s.sharing == nil {
		return nil
	}
	place := map[int64]int{}
	var cars, first, last []int64
	for i := range batch.Posts {
		p := &batch.Posts[i]
		id, ok := ids[p.Car]
		if !ok {
			id = s.carIDs[p.Car]
		}
		n, ok := place[id]
		if !ok {
			n = len(cars)
			place[id] = n
			cars, first, last = append(cars, id), append(first, p.At), append(last, p.At)
		}
		first[n], last[n] = min(first[n], p.At), max(last[n], p.At)
	}
	st, err := s.stmt(ctx, `UPDATE fleet_cars AS c SET last_at = v.last
		FROM unnest(?1::bigint[], ?2::bigint[], ?3::bigint[]) AS v(id, first, last) WHERE c.id = v.id AND c.last_at < v.first`)
	if err != nil {
		return err
	}
	result, err := st.ExecContext(ctx, cars, first, last)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == int64(len(cars)) {
		return err
	}
	return &Error{Fault: FaultBusy, Reload: true, Err: errors.New("another server has stored newer messages of the same cars")}
}

// Epoch implements Shared.
func (s *sqlStore) Epoch(ctx context.Context, shard int) (epoch int64, replica string, err error) {
	err = s.reader.QueryRowContext(ctx, `SELECT epoch, replica FROM fleet_shards WHERE shard = $1`, shard).Scan(&epoch, &replica)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", s.readError(ctx, err)
	}
	return epoch, replica, nil
}

// isKnown is the condition of a known device d: one of its statuses is stored (HTTP-18). $1
// is TouchInterval.
const isKnown = `EXISTS (SELECT 1 FROM fleet_messages n WHERE n.car_id = d.car_id AND n.kind = 0
	AND n.at BETWEEN d.status_at AND d.status_at + $1 AND n.module = d.module AND n.type = d.type AND n.role = d.role
	AND (n.message_type = 'STATUS' OR n.at = d.status_at))`

// KnownCars implements Shared.
func (s *sqlStore) KnownCars(ctx context.Context, since int64) ([]httpapi.Car, error) {
	rows, err := s.reader.QueryContext(ctx, `SELECT c.company, c.car FROM fleet_cars c WHERE c.known_at >= $2
		AND EXISTS (SELECT 1 FROM fleet_devices d WHERE d.car_id = c.id AND `+isKnown+`) ORDER BY c.known_at, c.company, c.car`, TouchInterval, since)
	if err != nil {
		return nil, s.readError(ctx, err)
	}
	defer func() { _ = rows.Close() }()
	cars := []httpapi.Car{}
	for rows.Next() {
		var car httpapi.Car
		if err := rows.Scan(&car.CompanyName, &car.CarName); err != nil {
			return nil, s.readError(ctx, err)
		}
		cars = append(cars, car)
	}
	if err := rows.Err(); err != nil {
		return nil, s.readError(ctx, err)
	}
	return cars, nil
}

// LastKnownAt implements Shared.
func (s *sqlStore) LastKnownAt(ctx context.Context) (at int64, err error) {
	err = s.reader.QueryRowContext(ctx, `SELECT COALESCE(max(known_at), 0) FROM fleet_cars`).Scan(&at)
	if err != nil {
		return 0, s.readError(ctx, err)
	}
	return at, nil
}

// KnownDevices implements Shared.
func (s *sqlStore) KnownDevices(ctx context.Context, car fleet.CarID) ([]httpapi.DeviceID, error) {
	rows, err := s.reader.QueryContext(ctx, `SELECT d.module, d.type, d.role, d.name
		FROM fleet_devices d JOIN fleet_cars c ON c.id = d.car_id WHERE c.company = $2 AND c.car = $3 AND `+isKnown, TouchInterval, car.Company, car.Car)
	if err != nil {
		return nil, s.readError(ctx, err)
	}
	defer func() { _ = rows.Close() }()
	var devices []httpapi.DeviceID
	for rows.Next() {
		var d httpapi.DeviceID
		if err := rows.Scan(&d.ModuleID, &d.Type, &d.Role, &d.Name); err != nil {
			return nil, s.readError(ctx, err)
		}
		devices = append(devices, d)
	}
	if err := rows.Err(); err != nil {
		return nil, s.readError(ctx, err)
	}
	return devices, nil
}
