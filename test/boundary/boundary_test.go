// Package boundary measures what a call across the boundary between the server and
// a module process costs, beside the alternatives that were not taken.
package boundary

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/cabi"
	"external-server/internal/module/host"
	"external-server/internal/support/idlemodule"
	"external-server/internal/support/servertest"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// The benchmarks of this file decided the boundary: our framing over a socket
// pair, or gRPC over a unix socket as hashicorp/go-plugin sets it up, with one
// RPC per call or one stream for all calls. The module does nothing in all of
// them. Run: make boundary

const benchStatus = `{"speed": 1.25, "state": "DRIVE", "position": {"latitude": 49.19, "longitude": 16.6, "altitude": 240}}`

// TestMain is also each of the processes that are measured.
func TestMain(m *testing.M) {
	host.RunIfHost()
	if len(os.Args) == 3 && os.Args[1] == "test-child" {
		switch os.Args[2] {
		case "plugin":
			servePlugin()
		case "idle":
			idlemodule.Serve()
		}
	}
	os.Exit(m.Run())
}

// boundaries are what is compared. Each function opens one and returns how to call
// across it.
func boundaries() map[string]func(testing.TB) crossing {
	return map[string]func(testing.TB) crossing{
		"in process": inProcess, "library": isolated, "framing": framing, "plugin, RPC per call": pluginUnary, "plugin, stream": pluginStream,
	}
}

// TestBoundaries: what is measured works.
func TestBoundaries(t *testing.T) {
	for name, open := range boundaries() {
		t.Run(name, func(t *testing.T) {
			call := open(t)
			for car := range cars {
				if err := call(car); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBoundary(b *testing.B) {
	all := boundaries()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b.Run(name, func(b *testing.B) { measure(b, all[name](b)) })
	}
}

// library is a module that does nothing with a status like benchStatus.
func library(b testing.TB) string {
	return servertest.Library(b, "internal/module/host/testdata/attack.c", "-w")
}

var device = fleet.Device{Module: 66, Type: 1, Role: "role", Name: "Name role"}

// cars is the largest number of cars that call.
const cars = 100

// crossing makes one call of one car.
type crossing func(car int) error

func measure(b *testing.B, call crossing) {
	for _, cars := range []int{1, cars} {
		b.Run(fmt.Sprintf("cars=%d", cars), func(b *testing.B) {
			var next atomic.Int64
			var group sync.WaitGroup
			latencies := make([][]time.Duration, cars)
			b.ResetTimer()
			for car := range cars {
				group.Go(func() {
					for next.Add(1) <= int64(b.N) {
						began := time.Now()
						if err := call(car); err != nil {
							b.Error(err)
							return
						}
						latencies[car] = append(latencies[car], time.Since(began))
					}
				})
			}
			group.Wait()
			b.StopTimer()
			all := slices.Concat(latencies...)
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1000, "p50-us")
			b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1000, "p99-us")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

// contexts opens 100 contexts and returns a crossing that forwards a status.
func contexts(b testing.TB, m module.Module) crossing {
	var instances []module.Instance
	for n := range cars {
		i, err := m.Open(b.Context(), module.InstanceSpec{Car: fleet.CarID{Company: "c", Car: fmt.Sprint("car", n)}})
		if err != nil {
			b.Fatal(err)
		}
		instances = append(instances, i)
		b.Cleanup(func() { _ = i.Close(context.Background()) })
	}
	data := []byte(benchStatus)
	ctx := b.Context()
	return func(car int) error { return instances[car].ForwardStatus(ctx, device, data) }
}

func inProcess(b testing.TB) crossing {
	m, err := cabi.Open(library(b), cabi.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return contexts(b, m)
}

func isolated(b testing.TB) crossing {
	m, err := host.Open(b.Context(), host.ForLibrary(library(b), host.Options{Expect: 66, Logger: slog.New(slog.DiscardHandler)}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	return contexts(b, m)
}

// framing is the framing alone, with a module in Go that does
// nothing: what compares with gRPC.
func framing(b testing.TB) crossing {
	m, err := host.Open(b.Context(), host.Options{Command: []string{"/proc/self/exe", "test-child", "idle"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	return contexts(b, m)
}

func pluginUnary(b testing.TB) crossing {
	conn := startPlugin(b)
	ctx := b.Context()
	return func(car int) error {
		return conn.Invoke(ctx, "/bench.Module/Call", benchCall(car), &pb.Result{})
	}
}

func pluginStream(b testing.TB) crossing {
	conn := startPlugin(b)
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := conn.NewStream(ctx, &benchService.Streams[0], "/bench.Module/Session")
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex // of sending
	answers := make([]chan struct{}, cars)
	for i := range answers {
		answers[i] = make(chan struct{}, 1)
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			frame := &pb.ModuleFrame{}
			if stream.RecvMsg(frame) != nil {
				return
			}
			answers[frame.GetId()-1] <- struct{}{}
		}
	})
	b.Cleanup(func() {
		cancel()
		reader.Wait()
	})
	return func(car int) error {
		mu.Lock()
		err := stream.SendMsg(&pb.ServerFrame{Id: uint64(car) + 1, Kind: &pb.ServerFrame_Call{Call: benchCall(car)}})
		mu.Unlock()
		if err == nil {
			<-answers[car]
		}
		return err
	}
}

func benchCall(car int) *pb.Call {
	return &pb.Call{Context: uint32(car), Function: pb.Call_FORWARD_STATUS, Device: &pb.Device{Module: 66, Type: 1, Role: "role", Name: "Name role"}, Data: []byte(benchStatus)}
}

// benchService is what protoc would generate for a service of these messages.
var benchService = grpc.ServiceDesc{
	ServiceName: "bench.Module",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Call",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return &pb.Result{}, decode(&pb.Call{})
		}}},
	Streams: []grpc.StreamDesc{{StreamName: "Session", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			var mu sync.Mutex
			for {
				frame := &pb.ServerFrame{}
				if err := stream.RecvMsg(frame); err != nil {
					return err
				}
				go func() { // contexts are independent of each other, here too
					mu.Lock()
					defer mu.Unlock()
					_ = stream.SendMsg(&pb.ModuleFrame{Id: frame.GetId(), Kind: &pb.ModuleFrame_Result{Result: &pb.Result{}}})
				}()
			}
		}}},
}

type benchPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (benchPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	s.RegisterService(&benchService, struct{}{})
	return nil
}

func (benchPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}

var benchHandshake = plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "BENCH", MagicCookieValue: "bench"}

func startPlugin(b testing.TB) *grpc.ClientConn {
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  benchHandshake,
		Plugins:          plugin.PluginSet{"module": benchPlugin{}},
		Cmd:              exec.Command("/proc/self/exe", "test-child", "plugin"),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Output: io.Discard}),
	})
	b.Cleanup(client.Kill)
	protocol, err := client.Client()
	if err != nil {
		b.Fatal(err)
	}
	conn, err := protocol.Dispense("module")
	if err != nil {
		b.Fatal(err)
	}
	return conn.(*grpc.ClientConn)
}

func servePlugin() {
	plugin.Serve(&plugin.ServeConfig{HandshakeConfig: benchHandshake, Plugins: plugin.PluginSet{"module": benchPlugin{}},
		GRPCServer: plugin.DefaultGRPCServer, Logger: hclog.New(&hclog.LoggerOptions{Output: io.Discard})})
	os.Exit(0)
}
