package mqtt

import (
	"errors"
	"fmt"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/wire"
)

// Tuning are the options that may change while the link runs; see Options.
type Tuning struct {
	Username, Password string        // from the next connection on
	RetryMax           time.Duration // from the next attempt on
	MaxPayload         int           // from the next message on
}

func (o *Options) tuning() *Tuning {
	return &Tuning{Username: o.Username, Password: o.Password, RetryMax: o.RetryMax, MaxPayload: o.MaxPayload}
}

// Check tells whether Tune would take the tuning.
func (t Tuning) Check() error { return t.complete() }

func (t *Tuning) complete() error {
	for _, s := range []struct{ name, value string }{{"user name", t.Username}, {"password", t.Password}} {
		if len(s.value) > wire.MaxString {
			return fmt.Errorf("mqtt: the %s has %d bytes, MQTT allows %d", s.name, len(s.value), wire.MaxString)
		}
	}
	if t.Password != "" && t.Username == "" {
		return errors.New("mqtt: a password without a user name cannot be sent: set the user name too")
	}
	if limit := wire.MaxRemaining - wire.MaxString - 4; t.MaxPayload > limit {
		return fmt.Errorf("mqtt: payloads of %d bytes: MQTT allows %d", t.MaxPayload, limit)
	}
	setDefault(&t.RetryMax, 5*time.Second)
	setDefault(&t.MaxPayload, fleet.DefaultPayload)
	return nil
}

// Tune changes the options of a link; connections that are made go on. On error
// nothing has changed.
func (l *Link) Tune(t Tuning) error {
	if err := t.complete(); err != nil {
		return err
	}
	l.tuning.Store(&t)
	return nil
}
