package observe

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/session"
	"external-server/internal/support/testleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testleak.Settled(m)) }

var (
	carID  = fleet.CarID{Company: "acme", Car: "car1"}
	lamp   = fleet.Device{Module: 2, Type: 1, Role: "lamp", Name: "l"}
	button = fleet.Device{Module: 2, Type: 4, Role: "button", Name: "b"}
	start  = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
)

func newHub(tb testing.TB, opts Options) *Hub {
	tb.Helper()
	h, err := New(opts)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

func status(d fleet.Device, counter uint32, data string, when time.Time) *car.Event {
	return &car.Event{Kind: car.Received, At: when, Since: when,
		In: fleet.ClientMessage{Kind: fleet.ClientStatus, Device: d, Counter: counter, State: fleet.StateRunning, Data: []byte(data)}}
}

func connect(c *Car, session string, when time.Time, devices ...fleet.Device) {
	c.Observe(&car.Event{Kind: car.SessionStarted, At: when, SessionID: session})
	for _, d := range devices {
		c.Observe(&car.Event{Kind: car.DeviceConnected, At: when, Device: d})
	}
	c.Observe(&car.Event{Kind: car.SessionRunning, At: when, Since: when.Add(-time.Second), SessionID: session})
}

func ended(c *Car, id string, when time.Time, reason session.Reason) {
	c.Observe(&car.Event{Kind: car.SessionEnded, At: when, Since: start, SessionID: id, Reason: string(reason), Established: true})
}

func TestLastValues(t *testing.T) {
	h := newHub(t, Options{})
	c := h.Car(carID)
	connect(c, "s1", at(0), lamp, button)
	c.Observe(status(lamp, 7, "on", at(1)))
	long := strings.Repeat("x", 10_000)
	c.Observe(status(button, 8, long, at(2)))
	c.Observe(status(fleet.Device{Module: 9, Role: "stranger"}, 9, "?", at(2)))
	v := c.View()
	if len(v.Devices) != 2 {
		t.Fatalf("devices %+v, want the two the session has connected", v.Devices)
	}
	if d := v.Devices[0]; d.Device != lamp || !d.Connected || !d.Since.Equal(at(0)) || d.Statuses != 1 ||
		string(d.Status.Payload.Data) != "on" || d.Status.Counter != 7 || !d.Status.At.Equal(at(1)) {
		t.Errorf("lamp %+v", d)
	}
	if p := v.Devices[1].Status.Payload; p.Size != len(long) || len(p.Data) != keptPayload {
		t.Errorf("a payload of %d bytes is kept as %d of %d", len(long), len(p.Data), p.Size)
	}
	c.Observe(status(button, 10, "short", at(3)))
	if p := c.View().Devices[1].Status.Payload; string(p.Data) != "short" || p.Size != 5 {
		t.Errorf("payload %q of %d bytes after a short status", p.Data, p.Size)
	}
	c.Observe(&car.Event{Kind: car.DeviceDisconnected, At: at(4), Device: lamp})
	if d := c.View().Devices[0]; d.Connected || !d.Since.Equal(at(4)) || string(d.Status.Payload.Data) != "on" {
		t.Errorf("lamp after it left %+v", d)
	}
	if got := h.States(); got["running"] != 1 || got["waiting"] != 0 {
		t.Errorf("states %v", got)
	}
	ended(c, "s1", at(5), session.ReasonSessionTimeout)
	if got := h.States(); got["running"] != 0 || got["waiting"] != 1 {
		t.Errorf("states %v", got)
	}
	h.Forget("car1")
	if got := h.States(); got["waiting"] != 0 {
		t.Errorf("states %v after the car was forgotten", got)
	}
}

// What a car makes us remember is bounded whatever it does.
func TestValuesAreBounded(t *testing.T) {
	c := newHub(t, Options{Events: 100}).Car(carID)
	for i := range 3 * keptDevices {
		d := lamp
		d.Role = fmt.Sprint(i)
		c.Observe(&car.Event{Kind: car.DeviceConnected, At: at(0), Device: d})
		c.Observe(&car.Event{Kind: car.DeviceDisconnected, At: at(0), Device: d})
		c.Observe(&car.Event{Kind: car.CommandFetched, At: at(0), Module: 2, Command: fleet.Command{Device: d, Data: make([]byte, 1<<16), Fetched: at(0)}})
		ended(c, d.Role, at(float64(i)), session.ReasonNoDevice)
	}
	v := c.View()
	if len(v.Devices) != keptDevices || len(v.Ends) != keptEnds || len(v.Commands) != keptCommands {
		t.Errorf("%d devices, %d ends, %d commands", len(v.Devices), len(v.Ends), len(v.Commands))
	}
	if v.Ends[0].Session != fmt.Sprint(3*keptDevices-1) {
		t.Errorf("newest end %+v", v.Ends[0])
	}
	for _, cmd := range v.Commands {
		if len(cmd.Payload.Data) > keptCommand || cmd.State != CommandDiscarded {
			t.Errorf("command %s of %d bytes", cmd.State, len(cmd.Payload.Data))
		}
	}
}

func TestLifeOfCommands(t *testing.T) {
	c := newHub(t, Options{}).Car(carID)
	connect(c, "s1", at(0), lamp, button)
	fetch := func(d fleet.Device, data string, when time.Time) fleet.Command {
		cmd := fleet.Command{Device: d, Data: []byte(data), Fetched: when}
		c.Observe(&car.Event{Kind: car.CommandFetched, At: when, Module: 2, Command: cmd})
		return cmd
	}
	send := func(cmd fleet.Command, counter uint32, when time.Time) {
		c.Observe(&car.Event{Kind: car.CommandSent, At: when, Module: 2, Device: cmd.Device, Counter: counter, Command: cmd})
	}
	answer := func(cmd fleet.Command, counter uint32, r fleet.ResponseType, when time.Time) {
		c.Observe(&car.Event{Kind: car.CommandAnswered, At: when, Since: at(1), Module: 2, Device: cmd.Device, Counter: counter, Command: cmd, Response: r})
	}
	// Two commands of one device that were fetched together keep their order.
	first, second := fetch(lamp, "a", at(1)), fetch(lamp, "b", at(1))
	send(first, 4, at(2))
	send(second, 5, at(2))
	answer(second, 5, fleet.ResponseDeviceNotConnected, at(3))
	answer(first, 4, fleet.ResponseOK, at(3))
	expired, lost := fetch(button, "c", at(4)), fetch(lamp, "d", at(4))
	send(expired, 6, at(5))
	send(lost, 7, at(5))
	fetch(lamp, "e", at(6))
	ended(c, "s1", at(9), session.ReasonCommandTimeout)
	var got []string
	v := c.View()
	for _, cmd := range v.Commands {
		got = append(got, fmt.Sprintf("%s %d %s %s", cmd.Payload.Data, cmd.Counter, cmd.State, cmd.Response))
	}
	want := []string{"e 0 discarded OK", "d 7 lost OK", "c 6 expired OK", "b 5 refused DEVICE_NOT_CONNECTED", "a 4 acknowledged OK"}
	if !slices.Equal(got, want) {
		t.Errorf("commands\n got %q\nwant %q", got, want)
	}
	if d := v.Devices[1]; d.Commands != 1 || d.LastCommand.State != CommandExpired || string(d.LastCommand.Payload.Data) != "c" {
		t.Errorf("last command of the button %+v", d.LastCommand)
	}
	if d := v.Devices[0]; d.Commands != 4 || string(d.LastCommand.Payload.Data) != "e" || d.LastCommand.State != CommandDiscarded {
		t.Errorf("last command of the lamp %+v", d.LastCommand)
	}
}

func TestEventsOfACar(t *testing.T) {
	h := newHub(t, Options{})
	c := h.Car(carID)
	connect(c, "s1", at(0), lamp)
	for i := range 5 { // one fault per reason and second, with the count of the rest
		c.Observe(&car.Event{Kind: car.Noted, At: at(1 + float64(i)/10), Reason: string(session.NoteStatusMissing), Level: session.Warning, Count: 1})
	}
	c.Observe(&car.Event{Kind: car.Noted, At: at(3), Reason: string(session.NoteStatusMissing), Level: session.Warning, Count: 1})
	c.Observe(&car.Event{Kind: car.Noted, At: at(3), Reason: string(session.NoteAlreadyLogged), Level: session.Info, Count: 1})
	ended(c, "s1", at(4), session.ReasonNoDevice)
	evs, next, lost := h.Events.Read(1, 100, nil)
	var got []string
	for _, ev := range evs {
		got = append(got, fmt.Sprintf("%s %s %s %d", ev.Kind, ev.Device, ev.Reason, ev.Count))
	}
	want := []string{"connect   0", "device_joined 2/1/lamp/l  0", "running   0", "fault  status missing, waiting for it 1",
		"fault  status missing, waiting for it 5", "disconnect  no connected device left 0"}
	if !slices.Equal(got, want) || lost != 0 {
		t.Errorf("events\n got %q\nwant %q (lost %d)", got, want, lost)
	}
	from, known := h.Events.After(evs[2].ID)
	if !known || from != 4 {
		t.Errorf("after %s: %d %v, want 4", evs[2].ID, from, known)
	}
	for _, id := range []string{"nonsense", "x-3", evs[0].ID + "0", "-", h.Events.epoch + "-99", h.Events.epoch + "--1"} {
		if from, known := h.Events.After(id); known || from != 1 {
			t.Errorf("after %q: %d %v, want the oldest", id, from, known)
		}
	}
	if from, known := h.Events.After(""); !known || from != next {
		t.Errorf("after nothing: %d %v, want what is to come", from, known)
	}
}

func TestRing(t *testing.T) {
	r := NewRing[uint64](4)
	put := func() { r.Put(func(n uint64) uint64 { return n }) }
	waiting := r.Wait(1)
	select {
	case <-waiting:
		t.Fatal("an empty ring has something to read")
	default:
	}
	put()
	<-waiting
	<-r.Wait(1)
	for range 9 {
		put()
	}
	got, next, lost := r.Read(1, 3, nil)
	if !slices.Equal(got, []uint64{7, 8, 9}) || next != 10 || lost != 6 {
		t.Errorf("read %v, next %d, lost %d", got, next, lost)
	}
	got, next, lost = r.Read(next, 3, got[:0])
	if !slices.Equal(got, []uint64{10}) || next != 11 || lost != 0 {
		t.Errorf("read %v, next %d, lost %d", got, next, lost)
	}
}

func TestTail(t *testing.T) {
	c := newHub(t, Options{}).Car(carID)
	c.Observe(status(lamp, 1, "before", at(0)))
	ring, stop := c.Watch()
	ring2, stop2 := c.Watch()
	if ring != ring2 {
		t.Error("two watchers have two rings")
	}
	c.Observe(status(lamp, 2, "seen", at(1)))
	c.Observe(&car.Event{Kind: car.Sent, At: at(1), OK: true, Out: fleet.ServerMessage{Kind: fleet.ServerStatusResponse, Counter: 2, SessionID: "s1"}})
	got, _, _ := ring.Read(1, 10, nil)
	if len(got) != 2 || string(got[0].Payload.Data) != "seen" || got[0].Out || !got[1].Out || got[1].Kind != "statusResponse" || got[1].Session != "s1" {
		t.Errorf("tail %+v", got)
	}
	stop()
	if c.tail.Load() == nil {
		t.Error("the ring is gone while somebody watches")
	}
	stop2()
	if c.tail.Load() != nil {
		t.Error("the ring is kept though nobody watches")
	}
}

func TestMeasuredCalls(t *testing.T) {
	h := newHub(t, Options{})
	c := h.Car(carID)
	for _, err := range []error{nil, errors.New("broken"), module.ErrNotDelivered} {
		c.Observe(&car.Event{Kind: car.Called, At: at(0), Module: 2, Call: module.CallStatus, Device: lamp, Wait: time.Millisecond, Took: time.Millisecond, Err: err})
	}
	c.Observe(&car.Event{Kind: car.CommandAnswered, At: at(2), Since: at(1), Module: 2, Response: 77, Command: fleet.Command{Fetched: at(0)}})
	got := gathered(t, h)
	for name, want := range map[string]float64{
		`external_server_module_calls_total{call="forward_status",module="2",result="ok"}`:    1,
		`external_server_module_calls_total{call="forward_status",module="2",result="error"}`: 1,
		`external_server_module_calls_total{call="forward_status",module="2",result="lost"}`:  1,
		`external_server_commands_answered_total{module="2",response="other"}`:                1,
		`external_server_status_queue_seconds{module="2"}`:                                    3,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// What is remembered of ten thousand cars must leave room for the cars: 8 KB for
// one with two devices that has gone through ten sessions and ten commands.
func TestMemoryPerCar(t *testing.T) {
	const cars = 1000
	h := newHub(t, Options{Events: 1})
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	data := strings.Repeat("x", 100)
	for i := range cars {
		c := h.Car(fleet.CarID{Company: "acme", Car: fmt.Sprint("car", i)})
		connect(c, "s", at(0), lamp, button)
		c.Observe(status(lamp, 1, data, at(1)))
		c.Observe(status(button, 2, data, at(1)))
		for n := range keptCommands {
			c.Observe(&car.Event{Kind: car.CommandFetched, At: at(0), Module: 2, Command: fleet.Command{Device: lamp, Data: []byte(data), Fetched: at(float64(n))}})
			ended(c, "s", at(2), session.ReasonSessionTimeout)
		}
	}
	perCar := (used() - before) / cars
	t.Logf("%d bytes per car", perCar)
	if perCar > 8<<10 {
		t.Errorf("%d bytes per car", perCar)
	}
	runtime.KeepAlive(h)
}

// The devices that come with a session, or go with it, are one event: a fleet that connects
// at once does not fill the stream with them. One that comes or goes by itself is told.
func TestDevicesOfASessionAreOneEvent(t *testing.T) {
	h := newHub(t, Options{})
	c := h.Car(carID)
	var devices []fleet.Device
	for i := range 12 {
		d := lamp
		d.Role, d.Name = fmt.Sprint("lamp", i), strings.Repeat("é", 3*i)
		devices = append(devices, d)
	}
	connect(c, "s1", at(0), devices...)
	c.Observe(&car.Event{Kind: car.DeviceConnected, At: at(1), Device: button})
	c.Observe(&car.Event{Kind: car.DeviceDisconnected, At: at(2), Device: button, OK: true})
	for _, d := range devices {
		c.Observe(&car.Event{Kind: car.DeviceDisconnected, At: at(3), Device: d})
	}
	ended(c, "s1", at(3), session.ReasonSessionTimeout)
	connect(c, "s2", at(4), lamp)
	evs, _, _ := h.Events.Read(1, 100, nil)
	var got []string
	for _, ev := range evs {
		got = append(got, fmt.Sprintf("%s %s %d %s", ev.Kind, ev.Device, ev.Count, ev.Session))
	}
	want := []string{"connect  0 s1", "device_joined  12 s1", "running  0 s1",
		"device_joined " + button.String() + " 0 ", "device_left " + button.String() + " 0 ",
		"device_left  12 s1", "disconnect  0 s1", "connect  0 s2", "device_joined 2/1/lamp/l 0 s2", "running  0 s2"}
	if !slices.Equal(got, want) {
		t.Errorf("events\n got %q\nwant %q", got, want)
	}
	text := evs[1].Text
	if !strings.HasPrefix(text, "12 devices: lamp0, ééé, ") || !strings.HasSuffix(text, " and 4 more") || !utf8.ValidString(text) {
		t.Errorf("the text is %q", text)
	}
	if evs[1].At != at(0) || evs[5].At != at(3) {
		t.Errorf("the times are %v and %v", evs[1].At, evs[5].At)
	}
	if v := c.View(); len(v.Devices) != 14 {
		t.Errorf("%d devices are known", len(v.Devices))
	}
}
