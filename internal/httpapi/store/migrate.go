package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// migrate brings the schema to the newest version. A newer one than ours is
// refused: an older program must not write it.
func (s *sqlStore) migrate(ctx context.Context) error {
	if _, err := s.writer.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS fleet_meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)`); err != nil {
		return err
	}
	var version int
	err := s.writer.QueryRowContext(ctx, `SELECT value FROM fleet_meta WHERE name = 'schema'`).Scan(&version)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if version > len(s.migrations) {
		return fmt.Errorf("the database has schema version %d, this program knows %d: use the newer program", version, len(s.migrations))
	}
	for ; version < len(s.migrations); version++ {
		err := s.migrateTo(ctx, version+1)
		if err != nil {
			return fmt.Errorf("migrate the schema to version %d: %w", version+1, err)
		}
	}
	return nil
}

func (s *sqlStore) migrateTo(ctx context.Context, version int) error {
	if _, err := s.writer.ExecContext(ctx, s.begin); err != nil {
		return err
	}
	_, err := s.writer.ExecContext(ctx, s.migrations[version-1])
	if err == nil {
		_, err = s.writer.ExecContext(ctx, s.q(`INSERT INTO fleet_meta (name, value) VALUES ('schema', ?1)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`), version)
	}
	if err == nil {
		_, err = s.writer.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		s.rollback()
	}
	return err
}
