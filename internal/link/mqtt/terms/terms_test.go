package terms

import (
	"testing"
	"time"

	"external-server/internal/link/mqtt/wire"
)

var asked = Asked{Version: wire.V5, ClientID: "es-0", KeepAlive: 15 * time.Second, Window: 4096, Shard: true, Keep: true, Expiry: 2 * time.Minute}

func server(change func(*wire.Server)) *wire.Packet {
	s := &wire.Server{ReceiveMaximum: 65535, MaximumQoS: 2, RetainAvailable: true}
	change(s)
	return &wire.Packet{Type: wire.Connack, Present: true, Server: s}
}

// What the broker says bounds what was asked for, and decides whether the session is kept.
func TestAgree(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		change                func(*wire.Server)
		persistent, continued bool
		unfit, declined       bool
	}{
		{"kept", func(*wire.Server) {}, true, true, false, false},
		{"another name", func(s *wire.Server) { s.AssignedClientID = "x" }, false, false, true, false},
		{"no expiry", func(s *wire.Server) { s.HasSessionExpiry = true }, false, false, true, true},
		{"QoS 0", func(s *wire.Server) { s.MaximumQoS = 0 }, false, false, true, true},
		{"nothing retained", func(s *wire.Server) { s.RetainAvailable = false }, true, true, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := asked.Agree(server(tt.change), false)
			if got.Persistent != tt.persistent || got.Continued != tt.continued || (got.Unfit != "") != tt.unfit || (got.Declined != "") != tt.declined || got.Misnamed != (tt.name == "another name") {
				t.Errorf("%+v", got)
			}
			if asked.Agree(server(tt.change), true).Continued {
				t.Error("continued what is of no use")
			}
		})
	}
	got := asked.Agree(server(func(s *wire.Server) {
		s.ReceiveMaximum, s.MaximumPacketSize, s.HasKeepAlive, s.KeepAlive = 20, 1000, true, 7
	}), false)
	if got.Window != 20 || got.MaxPacket != 1000 || got.KeepAlive != 7*time.Second || got.QoS != 1 {
		t.Errorf("%+v", got)
	}
	old := asked
	old.Version, old.Keep = wire.V311, false
	if got := old.Agree(&wire.Packet{Present: true}, false); got.Persistent || got.Continued || got.Declined == "" || got.Window != 4096 || !got.Retain {
		t.Errorf("%+v", got)
	}
}

func TestConnect(t *testing.T) {
	kept := asked.Connect()
	if !kept.Continue || kept.SessionExpiry != 120 || kept.ReceiveMaximum != ReceiveMaximum || kept.KeepAlive != 15 {
		t.Errorf("%+v", kept)
	}
	fresh := asked
	if fresh.Fresh = true; fresh.Connect().Continue {
		t.Error("continues what is of no use")
	}
	clean := asked
	clean.Keep = false
	if got := clean.Connect(); got.Continue || got.SessionExpiry != 0 || got.WillDelay != 0 {
		t.Errorf("%+v", got)
	}
}
