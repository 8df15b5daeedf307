package main

import (
	"testing"

	"github.com/fleet-protocol/external-server/sdk/module"
	"github.com/fleet-protocol/external-server/sdk/moduletest"
)

func TestMain(m *testing.M) { moduletest.Main(m, buttons{}) }

// TestRules checks the rules of the module interface, in processes of their own.
func TestRules(t *testing.T) {
	t.Run("normal", func(t *testing.T) {
		moduletest.Run(t, moduletest.Target{Number: number, Conversation: []moduletest.Exchange{
			{Status: `{"pressed": true}`, Command: `{"lit_up": true}`},
			{Status: `{"pressed": false}`, Command: `{"lit_up": false}`},
		}})
	})
	t.Run("inverted", func(t *testing.T) {
		moduletest.Run(t, moduletest.Target{Config: []module.Pair{{Key: "lamp", Value: "inverted"}}, Cycles: 100, Conversation: []moduletest.Exchange{
			{Status: `{"pressed": false}`, Command: `{"lit_up": true}`},
		}})
	})
}

// TestConfig needs no server: what a module decides by itself is tested by itself.
func TestConfig(t *testing.T) {
	if _, err := (buttons{}).Open(t.Context(), module.Car{Config: []module.Pair{{Key: "lamp", Value: "blue"}}}); err == nil {
		t.Error("an unknown lamp was accepted")
	}
}
