package fleetapi

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/module"
	"external-server/internal/support/testleak"
)

func TestMain(m *testing.M) {
	if store := os.Getenv(serveStore); store != "" {
		serve(store)
		return
	}
	goleak.VerifyTestMain(testleak.Settled(m))
}

var car = fleet.CarID{Company: "acme", Car: "car_1"}

// faultyAPI answers as a test says. The real API, in the process and over HTTP,
// is used wherever its answers are wanted.
type faultyAPI struct {
	httpapi.API
	post func(ctx context.Context, messages []httpapi.Message) error
	poll func(ctx context.Context, q httpapi.Query) ([]httpapi.Message, error)
}

func (a *faultyAPI) PostStatuses(ctx context.Context, _ fleet.CarID, messages []httpapi.Message) error {
	if a.post == nil {
		return nil
	}
	return a.post(ctx, messages)
}

func (a *faultyAPI) Commands(ctx context.Context, _ fleet.CarID, q httpapi.Query) ([]httpapi.Message, error) {
	if a.poll == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return a.poll(ctx, q)
}

func status(code int) error {
	return &httpapi.Error{Status: code, Title: http.StatusText(code), Detail: "because"}
}

// open makes an instance that the test closes; pairs are key, value, key, …
func open(t testing.TB, opts Options, pairs ...string) *Instance {
	t.Helper()
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return openIn(t, m, pairs...)
}

// openIn makes an instance of m, which ends with it.
func openIn(t testing.TB, m *Module, pairs ...string) *Instance {
	t.Helper()
	i, err := m.Open(t.Context(), spec(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = i.Close(ctx) // tests that care have closed it
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return i.(*Instance)
}

func spec(pairs ...string) module.InstanceSpec {
	s := module.InstanceSpec{Car: car, Config: []module.Pair{{Key: "company_name", Value: car.Company}, {Key: "car_name", Value: car.Car}}}
	for n := 0; n+1 < len(pairs); n += 2 {
		s.Config = append(s.Config, module.Pair{Key: pairs[n], Value: pairs[n+1]})
	}
	return s
}

func device(number int32, role string) fleet.Device {
	return fleet.Device{Module: number, Type: 1, Role: role, Name: "name of " + role}
}

// forward hands over statuses whose data is their number.
func forward(t testing.TB, i *Instance, role string, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := i.ForwardStatus(t.Context(), device(i.kind.number, role), fmt.Appendf(nil, "[%d]", n)); err != nil {
			t.Fatal(err)
		}
	}
}

// summary writes posted messages as role:data, statuses of one array together.
func summary(messages []httpapi.Message) string {
	parts := make([]string, len(messages))
	for n, m := range messages {
		parts[n] = m.DeviceID.Role + string(m.Payload.Data)
		if m.Payload.MessageType == httpapi.TypeStatusError {
			parts[n] += "!"
		}
	}
	return strings.Join(parts, " ")
}

func command(number int64, at int64, data string) httpapi.Message {
	return httpapi.Message{
		Timestamp: at,
		DeviceID:  httpapi.DeviceID{ModuleID: number, Type: 1, Role: "role", Name: "name"},
		Payload:   httpapi.Payload{Data: []byte(data), Encoding: httpapi.EncodingJSON, MessageType: httpapi.TypeCommand},
	}
}

func datas(commands []fleet.Command) string {
	parts := make([]string, len(commands))
	for n, c := range commands {
		parts[n] = string(c.Data)
	}
	return strings.Join(parts, " ")
}
