package config

import (
	"math"
	"time"

	"external-server/internal/config/document"
	"external-server/internal/module"
)

// defaultLimits are the bounds of REC-22 unless the file says otherwise.
func defaultLimits() Limits {
	return Limits{
		StatusesAhead:    1000,
		ModuleQueue:      module.DefaultQueue,
		Stop:             3500 * time.Millisecond,
		Payload:          1 << 20,
		IdleCar:          10 * time.Minute,
		AnyCars:          10_000,
		AdmissionTimeout: 2 * time.Second, // well below the 5 s of the gateway
	}
}

func (l *loader) limits(top *document.Object) Limits {
	d := defaultLimits()
	o := top.Block("limits")
	if o == nil {
		return d
	}
	const (
		most       = 10_000_000
		maxPayload = 256 << 20 // of MQTT
	)
	count := func(key string, def int, least int64) int {
		return int(o.Integer(key, int64(def), least, most))
	}
	out := Limits{
		StatusesAhead:    count("statuses_ahead", d.StatusesAhead, 1),
		ModuleQueue:      count("module_queue", d.ModuleQueue, 1),
		Stop:             o.Duration("stop_timeout_ms", time.Millisecond, d.Stop, leastTimeout),
		Payload:          int(o.Integer("payload_bytes", int64(d.Payload), 1, maxPayload)),
		MessagesPerSec:   count("messages_per_second", d.MessagesPerSec, 0),
		MessageBurst:     int(o.Integer("message_burst", int64(d.MessageBurst), 0, math.MaxInt32)),
		IdleCar:          o.Duration("idle_car_s", time.Second, d.IdleCar, time.Second),
		AnyCars:          count("any_cars", d.AnyCars, 1),
		AdmissionTimeout: o.Duration("admission_timeout_ms", time.Millisecond, d.AdmissionTimeout, leastTimeout),
	}
	o.Finish()
	return out
}
