package server

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
)

var startRounds = flag.Int("start-rounds", 36, "statuses of each device in the store of BenchmarkStart")

// BenchmarkStart measures a start with 10 000 cars of 10 devices each and an hour of
// their statuses, evenly in time. Making the store takes minutes and needs 1.5 GB in
// TMPDIR; FLEET_BENCH_STORE=postgres makes it in PostgreSQL.
func BenchmarkStart(b *testing.B) {
	const cars, devices, hour = 10_000, 10, 3_600_000
	rounds := *startRounds
	database := apitest.TempStore(b)
	if os.Getenv("FLEET_BENCH_STORE") == "postgres" {
		database = config.NewSecret(sharedPostgres.Database(b))
	}
	s, err := store.Open(b.Context(), database.Reveal())
	if err != nil {
		b.Fatal(err)
	}
	writer := apitest.OtherProgram(b, database.Reveal())
	begin := time.Now().UnixMilli() - hour
	for _, query := range []string{
		fmt.Sprintf(`WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < %d)
			INSERT INTO fleet_cars (company, car, known_at) SELECT 'company', 'car_' || n, %d FROM n`, cars, begin),
		fmt.Sprintf(`WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < %d)
			INSERT INTO fleet_devices (car_id, module, type, role, name, status_at)
			SELECT id, 3, n, 'role', 'name', %d + (id %% 100) * %d + %d FROM fleet_cars CROSS JOIN n`, devices, begin, hour/rounds/100, (rounds-1)*(hour/rounds)),
		fmt.Sprintf(`WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < %d)
			INSERT INTO fleet_messages (car_id, kind, at, stored_at, position, message_type, module, type, role, name, encoding, data)
			SELECT car_id, 0, %[2]d + (car_id %% 100) * %[3]d + n * %[4]d, %[2]d + (car_id %% 100) * %[3]d + n * %[4]d, type, 'STATUS', module, type, role, name, 'JSON',
			'{"nextStop":null,"state":"IDLE","telemetry":{"fuel":0.8,"position":{"altitude":230.0,"latitude":49.2,"longitude":16.6},"speed":0.0}}' FROM n CROSS JOIN fleet_devices`,
			rounds, begin, hour/rounds/100, hour/rounds),
	} {
		if _, err := writer.ExecContext(b.Context(), query); err != nil {
			b.Fatal(err)
		}
	}
	size, _ := s.Tidy(b.Context())
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		server, err := New(b.Context(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: database, Retention: 2 * time.Hour}})
		if err != nil {
			b.Fatal(err)
		}
		for server.Stats().StoreFault == store.FaultLoading {
			<-time.After(time.Millisecond)
		}
		if st := server.Stats(); st.Cars != cars || st.Devices != cars*devices {
			b.Fatalf("%+v", st)
		}
		b.StopTimer()
		if err := server.Shutdown(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(size)/(1<<20), "MB")
}
