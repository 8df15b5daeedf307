package store

import (
	"context"
	"testing"
)

// Postgres is the database server of this package's tests.
var Postgres = &sharedPostgres

// OnWriter runs a statement on the writing connection between two transactions.
func OnWriter(t *testing.T, s Store, query string) {
	t.Helper()
	if _, err := s.(*sqlStore).writer.ExecContext(context.Background(), query); err != nil {
		t.Fatal(err)
	}
}
