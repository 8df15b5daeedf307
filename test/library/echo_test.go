package library

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/tied"
)

// BenchmarkEcho measures round trips through mosquitto, closed loop: every car
// waits for the answer before it sends again. The cars are another process, so
// that cpu-s/1000 is the responder's alone. "echo" is the cheapest responder
// there can be; x-echo compares with it. "link" answers on the link's goroutine,
// "sessions" does so over 32 connections
// whose sessions the broker keeps, "actors" on one goroutine per car. "library" is the MQTT
// client library that other projects use.
//
//	go -C test test ./library -run '^$' -bench Echo -benchtime 5s
func BenchmarkEcho(b *testing.B) {
	for _, cars := range []int{1, 100} {
		var rate, cpu float64 // of the cheapest responder
		for _, r := range []struct {
			name  string
			serve func(b *testing.B, address string, cars int) (stop func())
		}{{"echo", serveEcho}, {"link", serveLink}, {"sessions", serveSessions}, {"actors", serveActors}, {"library", serveLibrary}} {
			b.Run(fmt.Sprintf("cars=%d/%s", cars, r.name), func(b *testing.B) {
				broker := brokertest.Start(b, brokertest.Options{Extra: "log_type none\nset_tcp_nodelay true\n"})
				stop := r.serve(b, broker.Address(), cars)
				defer stop()
				load := startLoad(b, broker.Address(), cars)
				before := cpuTime(b)
				b.ResetTimer()
				took := load.run(b.N)
				b.StopTimer()
				used := cpuTime(b) - before
				load.stop()
				perSecond, per1000 := float64(b.N)/took.Seconds(), used.Seconds()*1000/float64(b.N)
				b.ReportMetric(perSecond, "msgs/s")
				b.ReportMetric(per1000, "cpu-s/1000")
				if r.name == "echo" {
					rate, cpu = perSecond, per1000
				} else if rate > 0 {
					b.ReportMetric(perSecond/rate, "x-echo-rate")
					b.ReportMetric(per1000/cpu, "x-echo-cpu")
				}
			})
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchCar(i int) fleet.CarID { return fleet.CarID{Company: "bench", Car: "car_" + strconv.Itoa(i)} }

// serveEcho reads, answers and writes in one goroutine, one write for all that
// was received together.
func serveEcho(b *testing.B, address string, cars int) func() {
	p, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
	if err != nil {
		b.Fatal(err)
	}
	var filters []string
	answer := make(map[string]string)
	for i := range cars {
		in := benchCar(i).String() + "/module_gateway"
		filters = append(filters, in)
		answer[in] = benchCar(i).String() + "/external_server"
	}
	if err := p.Subscribe(1, filters...); err != nil {
		b.Fatal(err)
	}
	if err := p.Conn.SetDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		r := wire.NewReader(p.Conn, 1<<20)
		var out []byte
		var id uint16
		var m wire.Packet
		for r.Next(&m) == nil {
			if m.Type == wire.Publish {
				out = wire.AppendPuback(out, m.ID)
				if id++; id == 0 {
					id = 1
				}
				out = wire.AppendPublish(out, answer[string(m.Topic)], m.Payload, 1, id, false, false)
			}
			if !r.Ready() && len(out) > 0 {
				if _, err := p.Conn.Write(out); err != nil {
					return
				}
				out = out[:0]
			}
		}
	})
	return func() { p.Conn.Close(); running.Wait() }
}

type echoReceiver struct {
	acks    bool // Message acknowledges with the answer
	port    atomic.Pointer[link.Port]
	mail    chan []byte
	message func(*echoReceiver, []byte)
	up      func()
}

func (e *echoReceiver) Message(payload []byte, d link.Delivery) bool {
	if e.acks {
		return (*e.port.Load()).Publish(payload, d.Ack)
	}
	e.message(e, payload)
	return true
}
func (e *echoReceiver) LinkUp(link.Up)       { e.up() }
func (e *echoReceiver) BacklogRead()         {}
func (e *echoReceiver) Sent()                {}
func (e *echoReceiver) LinkDown(error, bool) {}

func serveLink(b *testing.B, address string, cars int) func() {
	return serve(b, address, cars, func(r *echoReceiver, payload []byte) { (*r.port.Load()).Publish(payload, link.Ack{}) })
}

func serveSessions(b *testing.B, address string, cars int) func() {
	return serveOver(b, mqtt.Options{Address: address, Sessions: &mqtt.Sessions{ClientID: "bench", Shards: 32}}, cars, nil)
}

func serveActors(b *testing.B, address string, cars int) func() {
	ctx, cancel := context.WithCancel(b.Context())
	var actors sync.WaitGroup
	stop := serve(b, address, cars, func(r *echoReceiver, payload []byte) {
		if r.mail == nil {
			r.mail = make(chan []byte, 16)
			actors.Go(func() {
				for {
					select {
					case payload := <-r.mail:
						(*r.port.Load()).Publish(payload, link.Ack{})
					case <-ctx.Done():
						return
					}
				}
			})
		}
		r.mail <- payload
	})
	return func() { stop(); cancel(); actors.Wait() }
}

func serve(b *testing.B, address string, cars int, message func(*echoReceiver, []byte)) func() {
	return serveOver(b, mqtt.Options{Address: address}, cars, message)
}

func serveOver(b *testing.B, opts mqtt.Options, cars int, message func(*echoReceiver, []byte)) func() {
	opts.Logger = slog.New(slog.DiscardHandler)
	l, err := mqtt.New(opts)
	if err != nil {
		b.Fatal(err)
	}
	var ready, running sync.WaitGroup
	ready.Add(cars)
	for i := range cars {
		r := &echoReceiver{up: ready.Done, message: message, acks: opts.Sessions != nil}
		p, err := l.Attach(benchCar(i), r)
		if err != nil {
			b.Fatal(err)
		}
		r.port.Store(&p)
	}
	ctx, cancel := context.WithCancel(b.Context())
	running.Go(func() { _ = l.Run(ctx) })
	ready.Wait()
	return func() { cancel(); running.Wait() }
}

func serveLibrary(b *testing.B, address string, cars int) func() {
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID("library"))
	if t := c.Connect(); !t.WaitTimeout(brokertest.Timeout) || t.Error() != nil {
		b.Fatal(t.Error())
	}
	filters := make(map[string]byte)
	for i := range cars {
		filters[benchCar(i).String()+"/module_gateway"] = 1
	}
	t := c.SubscribeMultiple(filters, func(c paho.Client, m paho.Message) {
		c.Publish(strings.TrimSuffix(m.Topic(), "module_gateway")+"external_server", 1, false, m.Payload())
	})
	if !t.WaitTimeout(brokertest.Timeout) || t.Error() != nil {
		b.Fatal(t.Error())
	}
	return func() { c.Disconnect(250) }
}

// load is the process with the cars.
type load struct {
	b    *testing.B
	wait func() error // of the process
	in   io.WriteCloser
	out  *bufio.Scanner
}

const loadVariable = "LINK_BENCH_LOAD"

func startLoad(b *testing.B, address string, cars int) *load {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", loadVariable, address, cars))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	wait, err := tied.Start(cmd, syscall.SIGKILL)
	if err != nil {
		b.Fatal(err)
	}
	l := &load{b: b, wait: wait, in: in, out: bufio.NewScanner(out)}
	l.read() // ready
	return l
}

func (l *load) read() string {
	if !l.out.Scan() {
		l.b.Fatalf("the load process ended: %v", l.out.Err())
	}
	return l.out.Text()
}

func (l *load) run(n int) time.Duration {
	fmt.Fprintln(l.in, n)
	d, err := time.ParseDuration(l.read())
	if err != nil {
		l.b.Fatal(err)
	}
	return d
}

func (l *load) stop() {
	l.in.Close()
	if err := l.wait(); err != nil {
		l.b.Fatal(err)
	}
}

// loadMain is the load process: it reads numbers of round trips and writes how
// long they took.
func loadMain(arg string) error {
	address, n, _ := strings.Cut(arg, " ")
	cars, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	peers := make([]*brokertest.Peer, cars)
	for i := range peers {
		if peers[i], err = brokertest.Dial(brokertest.PeerOptions{Address: address}); err != nil {
			return err
		}
		if err = peers[i].Subscribe(1, benchCar(i).String()+"/external_server"); err != nil {
			return err
		}
		if err = peers[i].Conn.SetDeadline(time.Time{}); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		total, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		var left atomic.Int64
		left.Store(int64(total))
		start := time.Now()
		errs := make([]error, cars)
		var wg sync.WaitGroup
		for i, p := range peers {
			wg.Go(func() { errs[i] = roundTrips(p.Conn, benchCar(i).String()+"/module_gateway", &left) })
		}
		wg.Wait()
		took := time.Since(start)
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		fmt.Println(took)
	}
	return in.Err()
}

func roundTrips(c net.Conn, topic string, left *atomic.Int64) error {
	payload := make([]byte, 150)
	r := wire.NewReader(c, 1<<20)
	var out []byte
	var m wire.Packet
	var id uint16
	for left.Add(-1) >= 0 {
		if id++; id == 0 {
			id = 1
		}
		out = wire.AppendPublish(out, topic, payload, 1, id, false, false)
		if _, err := c.Write(out); err != nil {
			return err
		}
		out = out[:0]
		for answered := false; !answered; {
			if err := r.Next(&m); err != nil {
				return err
			}
			if m.Type == wire.Publish {
				out = wire.AppendPuback(out, m.ID)
				answered = true
			}
		}
	}
	_, err := c.Write(out)
	return err
}
