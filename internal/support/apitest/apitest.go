// Package apitest has what the tests of the HTTP API's packages share: a car, its
// messages, and ways into a database beside the server.
package apitest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	_ "modernc.org/sqlite"             // the driver sqlite

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/postgrestest"
	"external-server/internal/support/testleak"
)

// Car1 is a car.
var Car1 = fleet.CarID{Company: "company", Car: "car_1"}

// TempStore returns the name of a new SQLite store.
func TempStore(t testing.TB) config.Secret {
	return config.NewSecret("sqlite:" + filepath.Join(t.TempDir(), "fleet.db"))
}

// Run runs a server until the test ends, and waits for its end.
func Run(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// OtherProgram returns connections to the database of a store, as another program has them.
func OtherProgram(t testing.TB, store string) *sql.DB {
	t.Helper()
	driver, source := "pgx", store
	if path, ok := strings.CutPrefix(store, "sqlite:"); ok {
		driver, source = "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Inject runs a statement as another program.
func Inject(t testing.TB, store, query string) {
	t.Helper()
	if _, err := OtherProgram(t, store).ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}

// Status returns a status of a device; data is JSON.
func Status(module, typ int64, role, data string) httpapi.Message {
	return httpapi.Message{DeviceID: httpapi.DeviceID{ModuleID: module, Type: typ, Role: role, Name: role + " name"},
		Payload: httpapi.Payload{MessageType: httpapi.TypeStatus, Encoding: httpapi.EncodingJSON, Data: []byte(data)}}
}

// Command returns a command for a device; data is JSON.
func Command(module, typ int64, role, data string) httpapi.Message {
	m := Status(module, typ, role, data)
	m.Payload.MessageType = httpapi.TypeCommand
	return m
}

// WantEqual fails the test when got is not deeply equal to want.
func WantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// Main runs the tests of a package that use the database server, ends it, and fails when
// a goroutine is left. It returns the exit code.
func Main(m *testing.M, postgres *postgrestest.Server) int {
	code := m.Run()
	postgres.Close()
	if code == 0 {
		if err := testleak.Left(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// ForEachStore runs a test over SQLite and over a real PostgreSQL, each time with the name
// of an empty store.
func ForEachStore(t *testing.T, postgres *postgrestest.Server, test func(t *testing.T, store string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, TempStore(t).Reveal()) })
	t.Run("postgres", func(t *testing.T) { test(t, postgres.Database(t)) })
}
