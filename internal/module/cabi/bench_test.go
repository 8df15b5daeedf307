//go:build cgo

package cabi

import (
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
)

// BenchmarkForwardStatus is the price of one call into a library that does
// nothing with it.
func BenchmarkForwardStatus(b *testing.B) {
	lib := buildExample(b)
	inst := openExample(b, lib, time.Second)
	device, status := exampleButton("button"), []byte(`{"pressed": false}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := inst.ForwardStatus(b.Context(), device, status); err != nil {
			b.Fatal(err)
		}
	}
	closeExample(b, lib, inst)
}

// BenchmarkWaitCommands is the price of fetching one command: a wait, a pop,
// copying, giving back.
func BenchmarkWaitCommands(b *testing.B) {
	lib, err := Open(build(b, probeSource, "-DPROBE_PAUSE=0"), Options{Expect: probeNumber})
	if err != nil {
		b.Fatal(err)
	}
	inst, err := lib.Open(b.Context(), module.InstanceSpec{Car: testCar, Config: []module.Pair{
		{Key: "wait", Value: "0"}, {Key: "pop", Value: "empty"},
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var commands []fleet.Command
	for b.Loop() {
		if commands, err = inst.WaitCommands(b.Context()); err != nil || len(commands) != 1 {
			b.Fatal(commands, err)
		}
	}
	if err := inst.Close(b.Context()); err != nil {
		b.Error(err)
	}
}
