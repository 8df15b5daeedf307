package core

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/apitest"
)

func numbered(n int) fleet.CarID {
	return fleet.CarID{Company: "company", Car: fmt.Sprint("car_", n)}
}

// rowsOf counts the rows of a table.
func rowsOf(t *testing.T, store, table string) (n int) {
	t.Helper()
	if err := apitest.OtherProgram(t, store).QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSilentCarsAreForgotten (REC-22): of cars whose messages are gone nothing is left,
// neither in memory nor in the store. One that comes again is given timestamps
// that are higher than before, also when the clock was set back.
func TestSilentCarsAreForgotten(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		store := openStore(t, name)
		defer func() { _ = store.Close() }()
		c := newSteppedCore(t, store)
		const invented = 1200 // more than one part
		var posts []*post
		for n := range invented {
			posts = append(posts, &post{car: numbered(n), messages: []httpapi.Message{apitest.Status(1, 1, "r", `{}`)}, result: make(chan error, 1)})
		}
		if c.writeBatch(posts) {
			t.Fatal("the store was lost")
		}
		last := c.now.Load()
		c.pass(30 * time.Minute)
		c.writeTo(numbered(invented), httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
		c.writeTo(numbered(0), httpapi.KindCommand, apitest.Command(1, 1, "r", `"left"`)) // a car that is not known but has a message
		c.pass(31 * time.Minute)
		apitest.WantEqual(t, "cars in memory and store", []int{len(c.cars), c.held, rowsOf(t, name, "fleet_cars"), rowsOf(t, name, "fleet_devices")}, []int{2, 2, 2, 1})
		c.pass(time.Hour)
		apitest.WantEqual(t, "cars in memory and store later", []int{len(c.cars), c.held, rowsOf(t, name, "fleet_cars"), rowsOf(t, name, "fleet_devices")}, []int{0, 0, 0, 0})

		for _, when := range []string{"at once", "after a restart"} {
			c.jump(time.Duration(last-c.now.Load())*time.Millisecond - time.Hour) // set back
			c.writeTo(numbered(7), httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
			got, err := c.Statuses(t.Context(), numbered(7), httpapi.Query{})
			if err != nil || len(got) != 1 || got[0].Timestamp <= last {
				t.Errorf("%s: %v, %v; expected a timestamp beyond %d", when, got, err, last)
			}
			c.pass(0) // what was stored later than now counts as stored now
			c.jump(time.Duration(got[0].Timestamp-c.now.Load()) * time.Millisecond)
			last = got[0].Timestamp
			c.pass(2 * time.Hour)
			apitest.WantEqual(t, "cars", len(c.cars), 0)
			c = newSteppedCore(t, store)
		}
	})
}

// TestDevicesOfBeforeTheLastEndAreForgotten: their statuses went while the server that
// knew them was at its end.
func TestDevicesOfBeforeTheLastEndAreForgotten(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		store := openStore(t, name)
		defer func() { _ = store.Close() }()
		c := newSteppedCore(t, store)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
		if _, _, err := store.DeleteBefore(t.Context(), c.now.Load()+1, c.now.Load()+1, 10); err != nil {
			t.Fatal(err)
		}
		c = newSteppedCore(t, store)
		c.pass(time.Minute)
		apitest.WantEqual(t, "rows", []int{len(c.cars), rowsOf(t, name, "fleet_cars"), rowsOf(t, name, "fleet_devices")}, []int{0, 0, 0})
	})
}

// TestCarsAreLimited (REC-22): beyond max_cars the status of a new car is refused, those
// of the others are not; a forgotten car makes room. The devices have a bound too.
func TestCarsAreLimited(t *testing.T) {
	store := openStore(t, apitest.TempStore(t).Reveal())
	defer func() { _ = store.Close() }()
	c := newSteppedCore(t, store)
	c.maxCars.Store(3)
	var posts []*post
	for n := range 5 { // in one transaction
		posts = append(posts, &post{car: numbered(n), messages: []httpapi.Message{apitest.Status(1, 1, "r", `{}`)}, result: make(chan error, 1)})
	}
	if c.writeBatch(posts) {
		t.Fatal("the store was lost")
	}
	for n, p := range posts {
		if err := <-p.result; httpapi.StatusOf(err) != []int{0, 0, 0, 507, 507}[n] || err != nil && !strings.Contains(err.Error(), "http_api.max_cars") {
			t.Errorf("car %d: %v", n, err)
		}
	}
	apitest.WantEqual(t, "a new car", c.writeTo(numbered(5), httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`)), 507)
	apitest.WantEqual(t, "a command for a new car", c.writeTo(numbered(5), httpapi.KindCommand, apitest.Command(1, 1, "r", `{}`)), 404)
	apitest.WantEqual(t, "a known car", c.writeTo(numbered(1), httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`)), 0)

	var devices []httpapi.Message
	for n := range 3*devicesPerCar - 2 {
		devices = append(devices, apitest.Status(3, int64(n), "r", `{}`))
	}
	apitest.WantEqual(t, "too many devices", c.writeTo(numbered(1), httpapi.KindStatus, devices...), 507)
	apitest.WantEqual(t, "as many as are allowed", c.writeTo(numbered(1), httpapi.KindStatus, devices[1:]...), 0)
	apitest.WantEqual(t, "one more", c.writeTo(numbered(2), httpapi.KindStatus, devices[0]), 507)
	apitest.WantEqual(t, "a known device", c.writeTo(numbered(1), httpapi.KindStatus, devices[1]), 0)
	c.pass(61 * time.Minute)
	apitest.WantEqual(t, "after the others were forgotten", c.writeTo(numbered(5), httpapi.KindStatus, devices[0]), 0)
	if len(c.cars) > 3 {
		t.Errorf("%d cars in memory", len(c.cars))
	}
}

// TestLogOfSQLiteIsCut: a reader of another program that stays open makes the
// write-ahead log grow. When it has ended the next sweep cuts the log, and the
// gauges tell the sizes.
func TestLogOfSQLiteIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	c := startCore(t, "sqlite:"+path, Options{})
	postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `{}`))
	reader, err := apitest.OtherProgram(t, "sqlite:"+path).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	for _, query := range []string{"BEGIN", "SELECT count(*) FROM fleet_messages"} {
		if _, err := reader.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	large := apitest.Status(1, 1, "r", `"`+strings.Repeat("x", 2<<20)+`"`)
	for range 16 {
		postStatus(t, c, apitest.Car1, large)
	}
	c.Close() // the test takes the writer's place
	size, log := c.store.Tidy(t.Context())
	if log < 32<<20 || size == 0 {
		t.Fatalf("%d bytes of data, %d of the log, although something reads", size, log)
	}
	if _, err := reader.ExecContext(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	sweep := newSweeper(c)
	defer sweep.close()
	if sweep.step() {
		t.Fatal("the store was lost")
	}
	const kept = 4 << 20
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if st := c.Stats(); st.LogBytes != info.Size() || st.LogBytes > kept || st.StoreBytes < 32<<20 {
		t.Errorf("%d bytes of data, %d of the log; expected %d at most", st.StoreBytes, st.LogBytes, kept)
	}
}
