package mqtt

import (
	"log/slog"
	"runtime"
	"testing"

	"external-server/internal/fleet"
)

// As long as Attach would refuse a car, its connection knows it: a caller that finds its
// topic unknown can attach it anew, as the watch does with the Connect of a gateway
// that comes back at this very moment.
func TestClosedInOneStep(t *testing.T) {
	l, err := New(Options{Address: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	car := fleet.CarID{Company: "acme", Car: "car"}
	p, err := l.Attach(car, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := l.conns[0]
	known := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ports["acme/car/module_gateway"] != nil
	}
	closed := make(chan struct{})
	l.mu.Lock() // the link cannot forget the car
	go func() {
		p.Close()
		close(closed)
	}()
	for range 10_000 {
		if runtime.Gosched(); !known() {
			t.Error("the connection has forgotten a car that is attached")
			break
		}
	}
	l.mu.Unlock()
	<-closed
	again, err := l.Attach(car, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Close() // once more changes nothing
	if c.cars != 1 || !known() {
		t.Errorf("%d cars are attached", c.cars)
	}
	again.Close()
}
