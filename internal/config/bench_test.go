package config

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkLoad10000Cars reads one file with 10 000 cars, every second one with
// a module of its own.
func BenchmarkLoad10000Cars(b *testing.B) {
	workdir(b)
	var cars strings.Builder
	for i := range 10_000 {
		if i > 0 {
			cars.WriteString(",\n")
		}
		fmt.Fprintf(&cars, `"car_%05d": {`, i)
		if i%2 == 0 {
			cars.WriteString(`"specific_modules": {"2": {"lib_path": "other.so", "config": {"api_url": "http://localhost:8080", "api_key": "key"}, "timeout_ms": 1000}}`)
		}
		cars.WriteString("}")
	}
	text := strings.Replace(minimalD, `"v": {}`, cars.String(), 1)
	write(b, "config.json", text)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		cfg, _, err := Load("config.json", nil)
		if err != nil || len(cfg.Cars) != 10_000 {
			b.Fatal(err)
		}
	}
}

// BenchmarkRedacted10000Cars is what the log line at the start costs.
func BenchmarkRedacted10000Cars(b *testing.B) {
	workdir(b)
	var cars strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&cars, `, "car_%05d": {}`, i)
	}
	cfg, _ := mustLoad(b, strings.Replace(minimalD, `"v": {}`, `"v": {}`+cars.String(), 1))
	b.ReportAllocs()
	for b.Loop() {
		if len(cfg.Redacted().String()) == 0 {
			b.Fatal("nothing")
		}
	}
}
