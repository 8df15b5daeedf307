package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/apitest"
)

func openStore(t *testing.T, name string) Store {
	t.Helper()
	s, err := Open(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func statusPost(car fleet.CarID, at int64, messages ...httpapi.Message) Post {
	p := Post{Car: car, At: at, Messages: messages, CarKnown: true}
	for _, m := range messages {
		p.First = append(p.First, m.DeviceID)
	}
	p.Touch = p.First
	return p
}

func read(t *testing.T, s Store, car fleet.CarID, command bool, since int64) string {
	t.Helper()
	messages, err := s.Messages(context.Background(), car, command, since, 1<<62)
	if err != nil {
		t.Fatal(err)
	}
	parts := []string{}
	for _, m := range messages {
		parts = append(parts, fmt.Sprintf("%d:%s", m.Timestamp, m.Payload.Data))
	}
	return strings.Join(parts, " ")
}

func apply(t *testing.T, s Store, storedAt int64, posts ...Post) {
	t.Helper()
	if err := s.Apply(context.Background(), &Batch{StoredAt: storedAt, Posts: posts}); err != nil {
		t.Fatal(err)
	}
}

func TestStoreReturnsWhatWasApplied(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		defer func() { _ = s.Close() }()
		odd := apitest.Status(1, 2, "role_1", `{"a":"\u0000 \\ \" ü 🚗 \ud800","b":[1e400,0.1,-0]}`)
		odd.DeviceID.Name = "näme 'quoted'; DROP TABLE fleet_messages"
		odd.Payload.Encoding = httpapi.EncodingBase64
		many := make([]httpapi.Message, 0, 234) // more than one size of insert statement
		for i := range 234 {
			many = append(many, apitest.Status(5, int64(i), "r", fmt.Sprint("[", i, "]")))
		}
		other := fleet.CarID{Company: "other", Car: apitest.Car1.Car}
		apply(t, s, 30, statusPost(apitest.Car1, 30, many...), statusPost(other, 10, odd))
		apply(t, s, 30, statusPost(apitest.Car1, 20, apitest.Status(1, 1, "r", `"late"`)), Post{Car: apitest.Car1, Command: true, At: 20, Messages: []httpapi.Message{apitest.Command(1, 1, "r", `{}`)}})

		messages, err := s.Messages(context.Background(), other, false, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		odd.Timestamp = 10
		apitest.WantEqual(t, "message", messages, []httpapi.Message{odd})
		if early, err := s.Messages(context.Background(), other, false, 0, 9); err != nil || len(early) != 0 {
			t.Errorf("until 9: %v, %v", early, err)
		}
		got := read(t, s, apitest.Car1, false, 0)
		if !strings.HasPrefix(got, `20:"late" 30:[0] 30:[1] 30:[2]`) || !strings.HasSuffix(got, "30:[233]") {
			t.Errorf("order of statuses: %s", got)
		}
		apitest.WantEqual(t, "since is inclusive", read(t, s, apitest.Car1, true, 20), "20:{}")
		apitest.WantEqual(t, "since", read(t, s, apitest.Car1, true, 21), "")
		apitest.WantEqual(t, "unknown car", read(t, s, fleet.CarID{Company: "x", Car: "y"}, false, 0), "")
	})
}

func TestStoreFirstStatusRemovesCommandsOfItsDevice(t *testing.T) { // HTTP-15
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		defer func() { _ = s.Close() }()
		other := fleet.CarID{Company: apitest.Car1.Company, Car: "car_2"}
		commands := []httpapi.Message{apitest.Command(1, 1, "a", `"1/1/a"`), apitest.Command(1, 1, "b", `"1/1/b"`), apitest.Command(1, 2, "a", `"1/2/a"`), apitest.Command(2, 1, "a", `"2/1/a"`)}
		apply(t, s, 1, Post{Car: apitest.Car1, Command: true, At: 1, Messages: commands}, Post{Car: other, Command: true, At: 1, Messages: commands[:1]})
		apply(t, s, 2, statusPost(apitest.Car1, 2, apitest.Status(1, 1, "a", `{}`)))
		apitest.WantEqual(t, "commands", read(t, s, apitest.Car1, true, 0), `1:"1/1/b" 1:"1/2/a" 1:"2/1/a"`)
		apitest.WantEqual(t, "other car", read(t, s, other, true, 0), `1:"1/1/a"`)
	})
}

func TestStoreRemembers(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		device := apitest.Status(1, 1, "a", `{}`).DeviceID
		silent := apitest.Status(1, 1, "silent", `{}`).DeviceID
		last := map[fleet.CarID]int64{apitest.Car1: 50_000}
		apply(t, s, 1003, statusPost(apitest.Car1, 1000, apitest.Status(1, 1, "a", `1`), apitest.Status(1, 1, "silent", `1`)))
		// The noted time of the newest status lags behind.
		apply(t, s, 50_003, Post{Car: apitest.Car1, At: 50_000, Messages: []httpapi.Message{apitest.Status(1, 1, "a", `2`)}})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		load := func() *State {
			var err error
			if s, err = Open(context.Background(), name); err != nil {
				t.Fatal(err)
			}
			state, err := s.Load(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if len(state.Devices) == 2 && state.Devices[0].Device.Role != "a" {
				state.Devices[0], state.Devices[1] = state.Devices[1], state.Devices[0]
			}
			return state
		}
		apitest.WantEqual(t, "state", load(), &State{Last: last, Cars: map[fleet.CarID]int64{apitest.Car1: 1000}, Devices: []Device{{apitest.Car1, device, 50_000, 50_003}, {apitest.Car1, silent, 1000, 1003}}})

		deleteBefore := func(cutoff, now int64, limit int, deleted int, more bool) {
			t.Helper()
			n, left, err := s.DeleteBefore(context.Background(), cutoff, now, limit)
			apitest.WantEqual(t, "deleted", []any{n, left, err}, []any{deleted, more, nil})
		}
		deleteBefore(50_003, 60_000, 1, 1, true)
		deleteBefore(50_003, 60_000, 10, 1, false)
		apitest.WantEqual(t, "left", read(t, s, apitest.Car1, false, 0), "50000:2")
		_ = s.Close()
		stale := []Device{{Car: apitest.Car1, Device: silent}}
		apitest.WantEqual(t, "state", load(), &State{Last: last, Cars: map[fleet.CarID]int64{apitest.Car1: 1000}, Devices: []Device{{apitest.Car1, device, 50_000, 50_003}}, Stale: stale})

		if err := s.Forget(context.Background(), []Device{{Car: apitest.Car1, Device: device}, stale[0]}); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		apitest.WantEqual(t, "state", load(), &State{Last: last, Cars: map[fleet.CarID]int64{}})

		// With its last message the car does not lose its newest timestamp, and what
		// seems to be stored in the future is as old as if it was stored now.
		deleteBefore(30_000, 40_000, 1, 0, true)
		deleteBefore(30_000, 40_000, 1, 0, false)
		deleteBefore(40_001, 50_000, 10, 1, false)
		apitest.WantEqual(t, "left", read(t, s, apitest.Car1, false, 0), "")
		_ = s.Close()
		apitest.WantEqual(t, "state", load(), &State{Last: last, Cars: map[fleet.CarID]int64{}})
		_ = s.Close()
	})
}

// TestStoreForgetsIDs: of a car that is forgotten nothing is kept in memory either.
func TestStoreForgetsIDs(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		defer func() { _ = s.Close() }()
		apply(t, s, 5, statusPost(apitest.Car1, 5, apitest.Status(1, 1, "a", `1`)))
		apitest.WantEqual(t, "ids of a car with messages", len(s.(*sqlStore).carIDs), 1)
		if _, _, err := s.DeleteBefore(t.Context(), 10, 10, 10); err != nil {
			t.Fatal(err)
		}
		gone, err := s.ForgetCars(t.Context(), []fleet.CarID{apitest.Car1}, 5)
		apitest.WantEqual(t, "forgotten", []any{gone, err}, []any{[]fleet.CarID{apitest.Car1}, nil})
		apitest.WantEqual(t, "ids", len(s.(*sqlStore).carIDs), 0)
	})
}

func TestStoreMakesAllOfABatchOrNothing(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		defer func() { _ = s.Close() }()
		apply(t, s, 5, statusPost(apitest.Car1, 5, apitest.Status(1, 1, "a", `1`)))
		other := fleet.CarID{Company: "new", Car: "new"}
		err := s.Apply(context.Background(), &Batch{StoredAt: 9, Posts: []Post{
			statusPost(other, 9, apitest.Status(1, 1, "a", `1`)), statusPost(apitest.Car1, 5, apitest.Status(1, 1, "a", `2`)), // HTTP-16: the same key
		}})
		if fault := AsError(err); err == nil || fault.Fault != FaultOther || fault.Reload {
			t.Fatalf("error %v", err)
		}
		apitest.WantEqual(t, "other car", read(t, s, other, false, 0), "")
		// The id that the rolled back transaction gave to the new car is not used.
		apply(t, s, 9, statusPost(fleet.CarID{Company: "third", Car: "third"}, 8, apitest.Status(1, 1, "a", `3`)), statusPost(other, 9, apitest.Status(1, 1, "a", `4`)))
		apitest.WantEqual(t, "other car", read(t, s, other, false, 0), "9:4")
	})
}

func TestStoreHasOneOwner(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		if second, err := Open(context.Background(), name); err == nil {
			_ = second.Close()
			t.Fatal("a second server could open the store")
		} else if !strings.Contains(err.Error(), "another server uses this database") {
			t.Errorf("error %q", err)
		}
		_ = s.Close()
		_ = openStore(t, name).Close()
	})
}

func TestStoreRefusesANewerSchema(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		if _, err := s.(*sqlStore).writer.ExecContext(context.Background(), `UPDATE fleet_meta SET value = 99 WHERE name = 'schema'`); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		second, err := Open(context.Background(), name)
		if err == nil {
			_ = second.Close()
			t.Fatal("opened")
		}
		if !strings.Contains(err.Error(), "schema version 99") {
			t.Errorf("error %q", err)
		}
	})
}

// TestStoreMigrates: a database of the first schema is taken over. Its messages are
// as old as their timestamps say, and no car is given a timestamp again.
func TestStoreMigrates(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		driver, source, migrations := "pgx", name, postgresMigrations
		if path, ok := strings.CutPrefix(name, "sqlite:"); ok {
			driver, source, migrations = "sqlite", sqliteDSN(path), sqliteMigrations
		}
		db, err := sql.Open(driver, source)
		if err != nil {
			t.Fatal(err)
		}
		for _, query := range []string{
			`CREATE TABLE fleet_meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)`,
			migrations[0],
			`INSERT INTO fleet_meta VALUES ('schema', 1), ('high', 9000)`,
			`INSERT INTO fleet_cars (company, car, known_at) VALUES ('company', 'car_1', 5), ('company', 'silent', 5)`,
			`INSERT INTO fleet_devices VALUES (1, 1, 2, 'r', 'name', 10)`,
			`INSERT INTO fleet_messages (car_id, kind, at, position, message_type, module, type, role, name, encoding, data)
				VALUES (1, 0, 10, 0, 'STATUS', 1, 2, 'r', 'name', 'JSON', '{}'), (1, 1, 20, 0, 'COMMAND', 1, 2, 'r', 'name', 'JSON', '[]')`,
		} {
			if _, err := db.Exec(query); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, name)
		defer func() { _ = s.Close() }()
		state, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		apitest.WantEqual(t, "state", state, &State{
			Last:    map[fleet.CarID]int64{apitest.Car1: 20, {Company: "company", Car: "silent"}: 9000},
			Cars:    map[fleet.CarID]int64{apitest.Car1: 5},
			Devices: []Device{{apitest.Car1, httpapi.DeviceID{ModuleID: 1, Type: 2, Role: "r", Name: "name"}, 10, 10}},
		})
		apply(t, s, 30, Post{Car: apitest.Car1, Command: true, At: 30, Messages: []httpapi.Message{apitest.Command(1, 2, "r", `"new"`)}})
		if n, _, err := s.DeleteBefore(t.Context(), 15, 30, 10); n != 1 || err != nil {
			t.Errorf("deleted %d, %v", n, err)
		}
		apitest.WantEqual(t, "commands", read(t, s, apitest.Car1, true, 0), `20:[] 30:"new"`)
		apitest.WantEqual(t, "statuses", read(t, s, apitest.Car1, false, 0), "")
	})
}

func TestOpenStoreErrors(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database. ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"mysql://user:planted@host/db": "unknown kind of store \"mysql\"",
		"sqlite:":                      "unknown kind of store",
		"sqlite:" + dir:                "is a directory",
		"sqlite:" + garbage:            "move the database file away",
		"sqlite:/proc/none/fleet.db":   "/proc/none",
		"postgres://user:planted@127.0.0.1:1/db?connect_timeout=5": "check that the database runs",
		"postgres://user:planted@[/db":                             "not valid",
	} {
		s, err := Open(context.Background(), name)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "http_api.store: ") || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: error %q, expected %q", name, err, want)
		}
	}
}

// TestSQLiteAnyPath uses characters that mean something in a URI.
func TestSQLiteAnyPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%41é", "fleet.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, "sqlite:"+path)
	apply(t, s, 5, statusPost(apitest.Car1, 5, apitest.Status(1, 1, "a", `1`)))
	_ = s.Close()
	db, err := sql.Open("sqlite", sqliteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var n int
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if err := db.QueryRow(`SELECT count(*) FROM fleet_messages`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d messages, %v", n, err)
	}
}

// TestCheckStore finds what Open would stumble over, and makes nothing.
func TestCheckStore(t *testing.T) {
	dir := t.TempDir()
	junk, empty := filepath.Join(dir, "junk"), filepath.Join(dir, "empty")
	if err := errors.Join(os.WriteFile(junk, []byte("no database, but long enough"), 0o600), os.WriteFile(empty, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	used := filepath.Join(dir, "used")
	store, err := Open(t.Context(), "sqlite:"+used)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"sqlite:" + used:                             "", // while a server uses it
		"sqlite:" + empty:                            "",
		"sqlite:" + filepath.Join(dir, "new"):        "",
		"sqlite:" + dir:                              "is a directory",
		"sqlite:" + filepath.Join(dir, "no", "file"): "does not exist; create it first",
		"sqlite:" + filepath.Join(junk, "file"):      "is not a folder",
		"sqlite:" + junk:                             "is not a SQLite database",
		"postgres://u:SECRET@127.0.0.1:1/d":          "",
		"postgres://u:SECRET@host:port/d":            "the PostgreSQL URL is not valid",
		"postgres://u:SECRET@h/d?connect_timeout=x":  "the PostgreSQL URL is not valid",
	} {
		err := Check(name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) || err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if want == "" || strings.HasPrefix(name, "postgres:") {
			continue
		}
		if s, err := Open(t.Context(), name); err == nil {
			t.Errorf("%s was opened", name)
			_ = s.Close()
		}
	}
	_ = os.Remove(junk + ".lock") // of Open
	if after, err := os.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Errorf("made in the folder: %v, before %v, %v", after, before, err)
	}
}

// TestPostgresFaultIsOneLine: a start that fails has one reason, in one line.
func TestPostgresFaultIsOneLine(t *testing.T) {
	_, err := Open(t.Context(), "postgres://u:planted@127.0.0.1:1/d")
	if err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "planted") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%q", err)
	}
}
