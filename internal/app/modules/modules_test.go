package modules

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"external-server/internal/config"
	"external-server/internal/module"
)

// counted is a module that notes its end.
type counted struct {
	number int32
	ended  *int
}

func (m counted) Number() int32        { return m.number }
func (m counted) Supports(uint32) bool { return true }
func (m counted) Close() error         { *m.ended++; return nil }

func (m counted) Open(context.Context, module.InstanceSpec) (module.Instance, error) {
	return nil, errors.New("not used")
}

func program(name string, number int32) config.Module {
	return config.Module{Number: number, Command: []string{name}, KeyPath: "cars.a." + name}
}

// All cars that name the same program share a module, with the number that it reports. It
// ends when no car of the configuration names it, and the others stay.
func TestModuleIsMadeOnce(t *testing.T) {
	made, ended := 0, 0
	s := New(Options{Logger: slog.New(slog.DiscardHandler), Instead: func(m config.Module) (module.Module, error) {
		made++
		return counted{m.Number, &ended}, nil
	}})
	for _, name := range []string{"lamp", "lamp", "door"} {
		if _, err := s.Module(t.Context(), program(name, 5)); err != nil {
			t.Fatal(err)
		}
	}
	if made != 2 || len(s.List()) != 2 {
		t.Errorf("%d modules were made for two programs; listed: %+v", made, s.List())
	}
	if _, err := s.Module(t.Context(), program("lamp", 6)); err == nil || !strings.Contains(err.Error(), "is configured as module 6 and reports number 5") {
		t.Errorf("another number: %v", err)
	}
	used := &config.Config{Cars: []config.Car{{Name: "a", Modules: []config.Module{program("door", 5)}}}}
	if err := s.CloseUnused(used); err != nil || ended != 1 {
		t.Errorf("%v; %d modules have ended, want 1", err, ended)
	}
	if list := s.List(); len(list) != 1 || list[0].Name != "door" || list[0].Kind != "command" {
		t.Errorf("listed: %+v", list)
	}
	if err := s.Close(); err != nil || ended != 2 {
		t.Errorf("%v; %d modules have ended, want 2", err, ended)
	}
}

// What could not be made is tried again by a server, and once by a check. The error names
// the key.
func TestModuleThatCannotBeMade(t *testing.T) {
	for _, once := range []bool{false, true} {
		tried := 0
		s := New(Options{Logger: slog.New(slog.DiscardHandler), Once: once, Instead: func(config.Module) (module.Module, error) {
			tried++
			return nil, errors.New("it does not greet")
		}})
		for range 3 {
			if _, err := s.Module(t.Context(), program("lamp", 5)); err == nil || err.Error() != "cars.a.lamp: it does not greet" {
				t.Errorf("%v", err)
			}
		}
		if want := map[bool]int{false: 3, true: 1}[once]; tried != want {
			t.Errorf("once %v: tried %d times", once, tried)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
