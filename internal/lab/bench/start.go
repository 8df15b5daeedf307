package bench

import (
	"context"
	"fmt"
	"net"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/simulate"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/protocol"
)

// start measures the time from the start of the process to the first answer to a
// car.
func start(cars int, t target) scenario {
	return scenario{
		name: fmt.Sprintf("start-%d", cars), roles: []string{RoleBuiltin, RoleEcho},
		metrics: []metric{{"ms", fmt.Sprintf("start to first answer, %d configured cars", cars), "ms", t}},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			p, err := newProber(b.place.address, fmt.Sprintf("%s/r%d_%d", company, b.serial+1, cars))
			if err != nil {
				return nil, err
			}
			defer p.nc.Close()
			began := time.Now()
			answered := make(chan time.Duration, 1)
			failed := make(chan error, 1)
			go func() { // ends with the connection
				if err := p.await(); err != nil {
					failed <- err
					return
				}
				answered <- time.Since(began)
			}()
			asking, stop := context.WithCancel(ctx)
			defer stop()
			go p.ask(asking)
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			select {
			case d := <-answered:
				return map[string]float64{"ms": float64(d) / float64(time.Millisecond)}, nil
			case err := <-failed:
				return nil, err
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(startTimeout):
				return nil, fmt.Errorf("the %s did not answer within %v", role, startTimeout)
			}
		},
	}
}

// prober is a car that sends a Connect again and again until it is answered.
type prober struct {
	nc  net.Conn
	car string // topic prefix
}

func newProber(address, car string) (*prober, error) {
	nc, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	hello := wire.AppendConnect(nil, wire.ConnectOptions{ClientID: fmt.Sprintf("prober-%d", time.Now().UnixNano())})
	hello = wire.AppendSubscribe(hello, 1, 0, car+fleet.TopicFromServer)
	if _, err := nc.Write(hello); err != nil {
		nc.Close()
		return nil, err
	}
	return &prober{nc: nc, car: car}, nil
}

// await returns with the first message for the car.
func (p *prober) await() error {
	r := wire.NewReader(p.nc, 1<<20)
	for {
		var m wire.Packet
		if err := r.Next(&m); err != nil {
			return err
		}
		if m.Type == wire.Publish {
			return nil
		}
	}
}

func (p *prober) ask(ctx context.Context) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	devices := []fleet.Device{{Module: 3, Type: 1, Role: "device"}, {Module: NullNumber, Role: "device"}}
	for n := 0; ; n++ {
		connect := fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: fmt.Sprintf("s%07d", n), Devices: devices}
		payload, err := protocol.EncodeClient(connect, fleet.CarID{Company: company, Car: "probed"})
		if err == nil {
			_, err = p.nc.Write(wire.AppendPublish(nil, p.car+fleet.TopicFromGateway, payload, 0, 0, false, false))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err != nil {
				return
			}
		}
	}
}
