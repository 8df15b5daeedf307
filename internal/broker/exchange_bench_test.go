package broker

import (
	"net"
	"testing"
	"time"

	"external-server/internal/support/testwait"
)

// BenchmarkExchange is a command and its response with a gateway that leaves Nagle's
// algorithm on and acknowledges the command before it answers.
func BenchmarkExchange(b *testing.B) {
	br, _ := startInside(b, Options{}, nil)
	server, car := dialInside(b, br), dialInside(b, br)
	if err := car.Conn.(*net.TCPConn).SetNoDelay(false); err != nil {
		b.Fatal(err)
	}
	if err := server.Subscribe(1, "response"); err != nil {
		b.Fatal(err)
	}
	if err := car.Subscribe(1, "command"); err != nil {
		b.Fatal(err)
	}
	var slowest time.Duration
	for b.Loop() {
		begin := time.Now()
		if err := server.Publish("command", []byte("x"), false); err != nil {
			b.Fatal(err)
		}
		if _, err := car.Receive(testwait.Patience); err != nil { // it acknowledges
			b.Fatal(err)
		}
		if err := car.Send("response", []byte("x")); err != nil {
			b.Fatal(err)
		}
		if _, err := server.Receive(testwait.Patience); err != nil {
			b.Fatal(err)
		}
		slowest = max(slowest, time.Since(begin))
	}
	b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
}
