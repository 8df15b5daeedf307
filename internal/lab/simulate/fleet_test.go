package simulate_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/broker"
	"external-server/internal/lab/bench"
	"external-server/internal/lab/gateway"
	"external-server/internal/lab/simulate"
	"external-server/internal/support/testleak"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testleak.Settled(m)) }

// echo runs the embedded broker and a responder on it until the test ends.
func echo(t *testing.T, every time.Duration) gateway.Broker {
	t.Helper()
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		if err := bench.Echo(ctx, bench.EchoOptions{Address: b.Addr().String(), Company: "test", CommandEvery: every}, func() { close(ready) }); err != nil {
			t.Error(err)
		}
	})
	<-ready
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return gateway.Broker{Address: b.Addr().String()}
}

func options(b gateway.Broker) simulate.Options {
	return simulate.Options{Broker: b, Company: "test", Cars: 20, Devices: 2, Module: 1000, DeviceType: -1, Payload: 100, Seed: 1}
}

// At a rate, exactly the planned statuses are sent, and all are answered.
func TestPlannedStatusesAreAnswered(t *testing.T) {
	o := options(echo(t, 0))
	o.Rate = 50
	var out bytes.Buffer
	r, err := simulate.Run(context.Background(), o, 500*time.Millisecond, &out, false)
	if err != nil {
		t.Fatal(err)
	}
	if r.Planned != 500 || r.Answered != 500 {
		t.Errorf("%d statuses planned, %d answered, expected 20 cars × 50/s × 0.5 s", r.Planned, r.Answered)
	}
	if r.EverConnected != 20 || r.Lost() != 0 || r.Guilty() != 0 || r.Responses["OK"] < 39 || r.ConnectSeconds <= 0 {
		t.Errorf("%+v", r)
	}
}

// In a closed loop every car has one status on its way, on shared connections and
// on connections of its own.
func TestClosedLoopRuns(t *testing.T) {
	for name, connections := range map[string]int{"shared": 2, "own": -1} {
		t.Run(name, func(t *testing.T) {
			o := options(echo(t, 0))
			o.Cars, o.Closed, o.Connections = 5, true, connections
			r, err := simulate.Run(context.Background(), o, 500*time.Millisecond, new(bytes.Buffer), false)
			if err != nil {
				t.Fatal(err)
			}
			if r.Answered < 10 || r.Planned-r.Answered > 5 || r.Lost() != 0 || r.Guilty() != 0 {
				t.Errorf("%d statuses planned, %d answered; %+v", r.Planned, r.Answered, r)
			}
		})
	}
}

// A fleet can be driven again and again.
func TestClosedLoopIsResumed(t *testing.T) {
	o := options(echo(t, 0))
	o.Cars, o.Closed = 3, true
	f, err := simulate.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Connect(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		f.Drive(context.Background(), 10*time.Millisecond)
		if i%2 == 0 {
			continue // the next one begins while answers are on their way
		}
		limit := time.Now().Add(testwait.Patience)
		for f.Report().Answered == 0 && time.Now().Before(limit) {
			f.Drive(context.Background(), 10*time.Millisecond)
		}
		if f.Report().Answered == 0 {
			t.Fatal("the cars do not report any more")
		}
	}
}

// Commands are counted, and handed to OnCommand.
func TestCommandsAreObserved(t *testing.T) {
	o := options(echo(t, 10*time.Millisecond))
	got := make(chan []byte, 1)
	o.OnCommand = func(data []byte, _ time.Time) {
		select {
		case got <- data:
		default:
		}
	}
	f, err := simulate.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Connect(context.Background()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
	case <-time.After(testwait.Patience):
		t.Fatal("no command came")
	}
}

// Faults happen, are counted, and show in what the cars see; their absence does too.
func TestFaultsAreInjected(t *testing.T) {
	o := options(echo(t, 0))
	o.Rate = 20
	o.Faults = simulate.Faults{Share: 0.5, Messages: gateway.Faults{Garbage: 0.2, Duplicate: 0.2}, Restart: 300, Flap: 300, Silence: 60, SilenceFor: 50 * time.Millisecond}
	r, err := simulate.Run(context.Background(), o, time.Second, new(bytes.Buffer), false)
	if err != nil {
		t.Fatal(err)
	}
	if r.FaultyCars != 10 || r.Injected["restarts"] == 0 || r.Injected["flaps"] == 0 || r.Injected["silences"] == 0 {
		t.Errorf("%d faulty cars, injected %v", r.FaultyCars, r.Injected)
	}
	if r.Lost() == 0 || r.Sessions <= 20 {
		t.Errorf("gateways were restarted %d times, %d sessions dropped, %d begun", r.Injected["restarts"], r.Lost(), r.Sessions)
	}
}

// Without a server the error says so, and the report is there all the same.
func TestNobodyAnswers(t *testing.T) {
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	o := options(gateway.Broker{Address: b.Addr().String()})
	o.Rate, o.ConnectTimeout = 1, 50*time.Millisecond
	r, err := simulate.Run(context.Background(), o, time.Millisecond, new(bytes.Buffer), false)
	if err == nil || !strings.Contains(err.Error(), "0 of 20 cars are connected") || r.Cars != 20 || r.EverConnected != 0 {
		t.Errorf("error %v, report %+v", err, r)
	}
}

// What cannot be simulated is refused with a reason.
func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*simulate.Options){
		"cars":        func(o *simulate.Options) { o.Cars = 0 },
		"company":     func(o *simulate.Options) { o.Company = "Not A Company" },
		"devices":     func(o *simulate.Options) { o.Devices = -1 },
		"payload":     func(o *simulate.Options) { o.Payload = 1 << 30 },
		"share":       func(o *simulate.Options) { o.Faults.Share = 2 },
		"closed loop": func(o *simulate.Options) { o.Closed, o.Rate = true, 1 },
		"garbage":     func(o *simulate.Options) { o.Faults = simulate.Faults{Share: 1, Messages: gateway.Faults{Garbage: 3}} },
		"connections": func(o *simulate.Options) { o.Connections = 1 << 20 },
		"broker":      func(o *simulate.Options) { o.Broker.Address = "nowhere" },
	} {
		o := options(gateway.Broker{Address: "127.0.0.1:1"})
		change(&o)
		o.Connections = max(o.Connections, -1)
		if o.Connections == 0 {
			o.Connections = -1 // no connection is made
		}
		if f, err := simulate.New(o); err == nil {
			f.Close()
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error does not name it: %v", name, err)
		}
	}
}

// A status has the wanted length where its module allows it.
func TestStatusLength(t *testing.T) {
	o := options(echo(t, 0))
	o.Cars, o.Rate, o.Payload, o.Module = 1, 1, 500, 1
	r, err := simulate.Run(context.Background(), o, time.Millisecond, new(bytes.Buffer), true)
	if err != nil || r.Payload != 500 {
		t.Errorf("%v, %d bytes", err, r.Payload)
	}
}
