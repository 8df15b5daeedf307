package car

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/module"
	"external-server/internal/protocol"
	"external-server/internal/session"
	"external-server/internal/support/testleak"
	"external-server/internal/support/testlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testleak.Settled(m)) }

var (
	carID  = fleet.CarID{Company: "acme", Car: "car_1"}
	button = fleet.Device{Module: 2, Type: 4, Role: "button", Name: "b"}
	lamp   = fleet.Device{Module: 2, Type: 1, Role: "lamp", Name: "l"}
	driver = fleet.Device{Module: 1, Type: 1, Role: "driver", Name: "d"}
)

// fakeModule is a module and its only instance, with answers a test decides.
// The fields are set before the car runs.
type fakeModule struct {
	number int32
	onCall func(ctx context.Context, call string) error // may block
	// commands are what WaitCommands returns; nil: none ever.
	commands chan []fleet.Command

	mu    sync.Mutex
	calls []string
}

func (m *fakeModule) Number() int32                   { return m.number }
func (m *fakeModule) Supports(deviceType uint32) bool { return deviceType < 10 }
func (m *fakeModule) Open(context.Context, module.InstanceSpec) (module.Instance, error) {
	return fakeInstance{m}, nil
}
func (m *fakeModule) Close() error { return nil }

// made returns the calls so far.
func (m *fakeModule) made() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

type fakeInstance struct{ m *fakeModule }

func (i fakeInstance) call(ctx context.Context, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	i.m.mu.Lock()
	i.m.calls = append(i.m.calls, text)
	i.m.mu.Unlock()
	if i.m.onCall != nil {
		return i.m.onCall(ctx, text)
	}
	return nil
}

func (i fakeInstance) DeviceConnected(ctx context.Context, d fleet.Device) error {
	return i.call(ctx, "connected %s", d.Role)
}

func (i fakeInstance) ForwardStatus(ctx context.Context, d fleet.Device, status []byte) error {
	return i.call(ctx, "status %s %s", d.Role, status)
}

func (i fakeInstance) ForwardError(ctx context.Context, d fleet.Device, message []byte) error {
	return i.call(ctx, "error %s %s", d.Role, message)
}

func (i fakeInstance) DeviceDisconnected(ctx context.Context, kind fleet.DisconnectType, d fleet.Device) error {
	return i.call(ctx, "disconnected %s %v", d.Role, kind)
}

func (i fakeInstance) CommandAck(ctx context.Context, c fleet.Command) error {
	return i.call(ctx, "ack %s %s", c.Device.Role, c.Data)
}

func (i fakeInstance) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	select {
	case c := <-i.m.commands:
		return c, nil
	case <-ctx.Done():
		return nil, nil
	}
}

func (i fakeInstance) Close(ctx context.Context) error { return i.call(ctx, "close") }

// fakeLink is a link and its only port; it records in words what the car sends.
type fakeLink struct {
	receiver link.Receiver

	mu     sync.Mutex
	sent   []string
	down   bool
	lost   bool          // with down: LinkDown is going to be told
	broken bool          // Publish panics
	hold   chan struct{} // if set, Publish waits for it
	closed bool

	acks, answered []uint16 // see acknowledged
}

func (l *fakeLink) Attach(_ fleet.CarID, r link.Receiver) (link.Port, error) {
	l.receiver = r
	return l, nil
}

func (l *fakeLink) Watch(string, func(fleet.CarID, []byte)) (func(), error) { return func() {}, nil }
func (l *fakeLink) Run(ctx context.Context) error                           { <-ctx.Done(); return nil }

func (l *fakeLink) record(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, text)
}

// take returns what was sent since the last call.
func (l *fakeLink) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.sent
	l.sent = nil
	return out
}

func (l *fakeLink) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *fakeLink) Acknowledge(a link.Ack) { l.set(func() { l.acks = append(l.acks, a.Packet) }) }

// acknowledged returns the packets that were acknowledged, and those of them that were
// with an answer.
func (l *fakeLink) acknowledged() (all, answered []uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks, l.answered
}

func (l *fakeLink) Publish(payload []byte, ack link.Ack) bool {
	if ack != (link.Ack{}) {
		l.set(func() { l.acks, l.answered = append(l.acks, ack.Packet), append(l.answered, ack.Packet) })
	}
	l.mu.Lock()
	down, broken, hold := l.down, l.broken, l.hold
	l.mu.Unlock()
	if hold != nil { // no port does this; it keeps the actor busy
		<-hold
	}
	if broken {
		panic("a defect")
	}
	if down {
		return false
	}
	m, err := protocol.DecodeServer(payload)
	if err != nil {
		l.record(err.Error())
		return true
	}
	switch m.Kind {
	case fleet.ServerConnectResponse:
		l.record("connectResponse " + m.SessionID)
	case fleet.ServerStatusResponse:
		l.record(fmt.Sprintf("statusResponse %d", m.Counter))
	case fleet.ServerCommand:
		l.record(fmt.Sprintf("command %d %s %s", m.Counter, m.Device.Role, m.Data))
	}
	return true
}

func (l *fakeLink) NotifyDisconnect() bool { l.record("disconnect"); return true }
func (l *fakeLink) DiscardPending()        {}

func (l *fakeLink) Lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}
func (l *fakeLink) Close() { l.set(func() { l.closed = true }) }

// rig is a car between a fake link and fake modules, inside a synctest bubble.
type rig struct {
	t       *testing.T
	seat    *Seat
	link    *fakeLink
	modules []Binding // of the first occupant
	log     testlog.Buffer
	stop    context.CancelCauseFunc
	ended   chan error
}

// newRig makes a seat whose first occupant has the modules; it takes the seat in run.
func newRig(t *testing.T, opts Options, modules ...*fakeModule) *rig {
	t.Helper()
	r := &rig{t: t, link: &fakeLink{}, modules: bindings(modules...), ended: make(chan error, 1)}
	opts.ID = carID
	opts.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	var err error
	if r.seat, err = New(opts); err != nil {
		t.Fatal(err)
	}
	if err := r.seat.Attach(r.link); err != nil {
		t.Fatal(err)
	}
	return r
}

func bindings(modules ...*fakeModule) []Binding {
	var out []Binding
	for _, m := range modules {
		out = append(out, Binding{Module: m, Instance: fakeInstance{m}})
	}
	return out
}

func (r *rig) run() *rig {
	r.t.Helper()
	r.put(r.modules)
	r.watch()
	r.link.receiver.LinkUp(link.Fresh)
	synctest.Wait()
	return r
}

// watch calls Run.
func (r *rig) watch() {
	ctx, cancel := context.WithCancelCause(context.Background())
	r.stop = cancel
	go func() { r.ended <- r.seat.Run(ctx) }()
}

// replace puts an occupant with the modules into the seat.
func (r *rig) replace(modules ...*fakeModule) (ended func(context.Context) error) {
	r.t.Helper()
	return r.put(bindings(modules...))
}

func (r *rig) put(modules []Binding) (ended func(context.Context) error) {
	r.t.Helper()
	ended, err := r.seat.Replace(context.Background(), Occupant{Modules: modules})
	if err != nil {
		r.t.Fatal(err)
	}
	return ended
}

// end stops the car and returns what Run returned.
func (r *rig) end() error {
	r.stop(nil)
	return <-r.ended
}

// suspend ends the process of the car for another one to go on with it.
func (r *rig) suspend() error {
	r.link.receiver.LinkDown(nil, true)
	r.stop(link.ErrSuspend)
	return <-r.ended
}

// busy keeps the actor from doing anything, from its next message to the gateway
// on, until the result is called.
func (r *rig) busy() (release func()) {
	hold := make(chan struct{})
	r.link.set(func() { r.link.hold = hold })
	return func() {
		r.link.set(func() { r.link.hold = nil })
		close(hold)
		synctest.Wait()
	}
}

// send delivers a message of the gateway and waits until it is handled.
func (r *rig) send(m fleet.ClientMessage) {
	r.t.Helper()
	if m.SessionID == "" {
		m.SessionID = "session1"
	}
	raw, err := protocol.EncodeClient(m, carID)
	if err != nil {
		r.t.Fatal(err)
	}
	to := r.link.receiver
	go func() { to.Message(raw, link.Delivery{}); to.Sent() }() // busy may hold the link's goroutine up
	synctest.Wait()
}

func (r *rig) status(counter uint32, d fleet.Device, text string) {
	r.t.Helper()
	r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: counter, Device: d, Data: []byte(text)})
}

func (r *rig) respond(counter uint32) {
	r.t.Helper()
	r.send(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, Counter: counter})
}

// connect performs the connect sequence with the devices; the car is RUNNING
// afterwards and its next status has the counter len(devices)+1.
func (r *rig) connect(devices ...fleet.Device) {
	r.t.Helper()
	r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, Devices: devices})
	for i, d := range devices {
		r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateConnecting, Counter: uint32(i + 1), Device: d, Data: []byte("first")})
	}
	for i := range devices {
		r.respond(uint32(i))
	}
	if p := r.seat.Snapshot().Phase; p != session.PhaseRunning {
		r.t.Fatalf("phase is %v after the connect sequence; sent %q", p, r.link.take())
	}
}

func (r *rig) wantSent(want ...string) {
	r.t.Helper()
	if got := r.link.take(); !slices.Equal(got, want) {
		r.t.Errorf("sent\n got %q\nwant %q", got, want)
	}
}

func (r *rig) wantCalls(m *fakeModule, want ...string) {
	r.t.Helper()
	if got := m.made(); !slices.Equal(got, want) {
		r.t.Errorf("calls of module %d\n got %q\nwant %q", m.number, got, want)
	}
}

func (r *rig) wantLogged(text string, times int) {
	r.t.Helper()
	if n := strings.Count(r.log.String(), text); n != times {
		r.t.Errorf("%q is logged %d times, want %d, in:\n%s", text, n, times, r.log.String())
	}
}

// advance lets the fake clock run.
func advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantFailed waits for the end of Run by a defect.
func (r *rig) wantFailed(again bool) {
	r.t.Helper()
	var d *Defect
	if err := <-r.ended; !errors.As(err, &d) || d.Again != again {
		r.t.Fatalf("Run ended with %v, want a defect, the second one: %v", err, again)
	}
}
