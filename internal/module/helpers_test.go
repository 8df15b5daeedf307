package module

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
	"external-server/internal/support/testleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testleak.Settled(m)) }

// scripted is an Instance whose answers a test decides. Fields are set before
// the worker runs.
type scripted struct {
	onCall func(ctx context.Context, call string) error // may block
	onWait func(ctx context.Context) ([]fleet.Command, error)

	mu    sync.Mutex
	calls []string
	inUse int
}

func (s *scripted) call(ctx context.Context, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.calls = append(s.calls, text)
	s.inUse++
	if s.inUse > 1 {
		s.calls = append(s.calls, "CONCURRENT")
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.inUse--
		s.mu.Unlock()
	}()
	if s.onCall != nil {
		return s.onCall(ctx, text)
	}
	return nil
}

func (s *scripted) made() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *scripted) DeviceConnected(ctx context.Context, d fleet.Device) error {
	return s.call(ctx, "connected %s", d.Role)
}

func (s *scripted) ForwardStatus(ctx context.Context, d fleet.Device, status []byte) error {
	return s.call(ctx, "status %s %s", d.Role, status)
}

func (s *scripted) ForwardError(ctx context.Context, d fleet.Device, message []byte) error {
	return s.call(ctx, "error %s %s", d.Role, message)
}

func (s *scripted) DeviceDisconnected(ctx context.Context, kind fleet.DisconnectType, d fleet.Device) error {
	return s.call(ctx, "disconnected %s %v", d.Role, kind)
}

func (s *scripted) CommandAck(ctx context.Context, c fleet.Command) error {
	return s.call(ctx, "ack %s %s", c.Device.Role, c.Data)
}

func (s *scripted) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	if s.onWait != nil {
		return s.onWait(ctx)
	}
	<-ctx.Done()
	return nil, nil
}

func (s *scripted) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "close")
	return nil
}

// start runs a worker in the bubble of the test, which must close it.
func start(s *scripted, opts WorkerOptions) *Worker {
	w := NewWorker(s, 7, opts)
	w.Start()
	synctest.Wait()
	return w
}

// ForwardStatus queues a status and begins the calls if need be.
func (w *Worker) ForwardStatus(device fleet.Device, data, message []byte) bool {
	ok, begin := w.QueueStatus(Status{Device: device, Data: data, Error: message})
	if begin {
		w.Begin()
	}
	return ok
}

// closeWithin closes the worker with a deadline.
func closeWithin(w *Worker, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return w.Close(ctx)
}

func status(n int) []byte { return []byte(fmt.Sprint(n)) }

var button = fleet.Device{Module: 7, Type: 1, Role: "button", Name: "b"}
