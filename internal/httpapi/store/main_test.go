package store

import (
	"os"
	"testing"

	"external-server/internal/support/apitest"
	"external-server/internal/support/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(apitest.Main(m, &sharedPostgres)) }

// sharedPostgres starts when the first test wants a database.
var sharedPostgres postgrestest.Server

// forEachStore runs a test over SQLite and over a real PostgreSQL.
func forEachStore(t *testing.T, test func(t *testing.T, store string)) {
	apitest.ForEachStore(t, &sharedPostgres, test)
}
