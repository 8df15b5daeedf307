package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"external-server/internal/brokertest"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/module"
)

// idleModule does nothing; contexts of the car held end when release is closed.
type idleModule struct {
	held    string
	closing chan struct{} // closed when the context of held is to end
	release chan struct{}
	once    *sync.Once
}

func (m idleModule) Number() int32        { return 5 }
func (m idleModule) Supports(uint32) bool { return true }
func (m idleModule) Close() error         { return nil }

func (m idleModule) Open(_ context.Context, spec module.InstanceSpec) (module.Instance, error) {
	return idleInstance{m, spec.Car}, nil
}

type idleInstance struct {
	m   idleModule
	car fleet.CarID
}

func (i idleInstance) DeviceConnected(context.Context, fleet.Device) error       { return nil }
func (i idleInstance) ForwardStatus(context.Context, fleet.Device, []byte) error { return nil }
func (i idleInstance) ForwardError(context.Context, fleet.Device, []byte) error  { return nil }
func (i idleInstance) CommandAck(context.Context, fleet.Command) error           { return nil }
func (i idleInstance) DeviceDisconnected(context.Context, fleet.DisconnectType, fleet.Device) error {
	return nil
}

func (i idleInstance) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (i idleInstance) Close(context.Context) error {
	if i.car.Car == i.m.held {
		i.m.once.Do(func() { close(i.m.closing) })
		<-i.m.release
	}
	return nil
}

// TestGatewayHeardDuringReload: while a reload replaces cars, those that have ended
// already are not taken for unknown ones and served by "*" instead.
func TestGatewayHeardDuringReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	load := func(value int) *config.Config {
		text := fmt.Sprintf(`{"company_name": "company", "embedded_broker": {"listen": "127.0.0.1:0"},
			"common_modules": {"5": {"command": ["true"], "config": {"value": %d}}}, "cars": {"a": {}, "b": {}, "*": {}}}`, value)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := config.Load(path, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	m := idleModule{held: "b", closing: make(chan struct{}), release: make(chan struct{}), once: new(sync.Once)}
	a, err := New(t.Context(), Options{
		Config: load(1), Logger: slog.New(slog.DiscardHandler),
		Module: func(config.Module) (module.Module, error) { return m, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer stop()
	let := sync.OnceFunc(func() { close(m.release) })
	defer let()
	until(t, a.LinkUp)
	peer, err := brokertest.Dial(brokertest.PeerOptions{Address: a.BrokerAddr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()

	reloaded := make(chan error, 1)
	go func() {
		_, err := a.Reload(ctx, load(2))
		reloaded <- err
	}()
	<-m.closing
	until(t, func() bool { // car a has ended, its gateway is heard
		if err := peer.Publish("company/a/module_gateway", []byte{1}, false); err != nil {
			t.Fatal(err)
		}
		if _, served := a.roster.find("a"); served {
			t.Fatal("car a is served before the reload is over")
		}
		return a.link.State().Connections[0].IgnoredForeign > 0
	})
	let()
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	if n := len(a.Cars()); n != 2 {
		t.Errorf("%d cars are served, expected 2", n)
	}
}

// until waits for what must happen.
func until(t *testing.T, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(2 * time.Millisecond) { // polling a condition
		if time.Now().After(end) {
			t.Fatal("did not happen within a minute")
		}
	}
}
