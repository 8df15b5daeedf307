//go:build cgo

package car

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/module"
	"external-server/internal/module/cabi"
	"external-server/internal/protocol"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// A car with the real example library: its commands arrive, and a stop ends its
// wait and destroys its context.
func TestExampleLibrary(t *testing.T) {
	testneed.Tool(t, "make", "make")
	path := filepath.Join(t.TempDir(), "libexample-module.so")
	if text, err := exec.Command("make", "-s", "-C", "../../modules/example", "OUT="+path).CombinedOutput(); err != nil {
		t.Fatalf("make: %v\n%s", err, text)
	}
	lib, err := cabi.Open(path, cabi.Options{Expect: 1000})
	if err != nil {
		t.Fatal(err)
	}
	instance, err := lib.Open(t.Context(), module.InstanceSpec{Car: carID, PollTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{ID: carID, Logger: newLogger()})
	if err != nil {
		t.Fatal(err)
	}
	l := &fakeLink{}
	if err := c.Attach(l); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Replace(t.Context(), Occupant{Modules: []Binding{{Module: lib, Instance: instance}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()

	device := fleet.Device{Module: 1000, Role: "button", Name: "b"}
	unsupported := fleet.Device{Module: 1000, Type: 5, Role: "other", Name: "o"}
	say := func(m fleet.ClientMessage) {
		m.SessionID = "session1"
		raw, err := protocol.EncodeClient(m, carID)
		if err != nil {
			t.Fatal(err)
		}
		c.Message(raw, link.Delivery{})
		c.Sent()
	}
	var sent []string
	wait := func(text string) {
		t.Helper()
		testwait.Until(t, text, func() bool {
			sent = append(sent, l.take()...)
			return strings.Contains(strings.Join(sent, "\n"), text)
		})
	}
	say(fleet.ClientMessage{Kind: fleet.ClientConnect, Devices: []fleet.Device{device, unsupported}})
	wait("connectResponse session1")
	say(fleet.ClientMessage{Kind: fleet.ClientStatus, Counter: 1, Device: device, Data: []byte(`{"pressed": false}`)})
	say(fleet.ClientMessage{Kind: fleet.ClientStatus, Counter: 2, Device: unsupported})
	wait("command 1 ") // one for each device (REC-6)
	say(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, Counter: 0})
	say(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, Counter: 1})
	wait(`button {"lit_up": false}`) // MM-52, MM-53
	say(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: 3, Device: device, Data: []byte(`{"pressed": true}`)})
	wait("statusResponse 3")

	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := lib.Close(); err != nil { // fails when a context was left
		t.Error(err)
	}
	if s := c.Snapshot(); s.Modules[0].Statuses != 2 || s.Modules[0].Errors != 0 || s.Modules[0].Lost != 0 {
		t.Errorf("module %+v", s.Modules[0])
	}
}
