package config

import (
	"crypto/sha256"
	"encoding/hex"
)

// Fingerprint is the same for two servers whose cars cannot tell them apart: company,
// broker, cars, modules with their settings, times and limits. What differs from machine
// to machine has no influence: addresses to listen on, directories, log, tokens, the
// cluster's own block. It tells nothing of what it is made from.
func (c *Config) Fingerprint() string {
	fleet := Config{
		Company: c.Company, Broker: c.Broker, MessageTimeout: c.MessageTimeout, SessionTimeout: c.SessionTimeout,
		SendInvalidCommand: c.SendInvalidCommand, Cars: withoutSpools(c.Cars), Limits: c.Limits,
	}
	fleet.Broker.TLS, fleet.Broker.files = nil, TLS{} // paths
	fleet.Broker.Password = Secret{}                  // each server may have a user of its own
	fleet.Broker.Username, fleet.Broker.ClientID = "", ""
	if c.AnyCar != nil {
		fleet.AnyCar = &withoutSpools([]Car{*c.AnyCar})[0]
	}
	raw, err := encoder{full: true, reveal: true}.config(&fleet).MarshalJSON()
	if err != nil {
		return "" // never: all values are texts and numbers
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// withoutSpools copies cars without the directories of their modules' queues.
func withoutSpools(cars []Car) []Car {
	out := make([]Car, len(cars))
	for i, car := range cars {
		out[i] = Car{Name: car.Name, Modules: make([]Module, len(car.Modules))}
		for j, m := range car.Modules {
			m.SpoolDirectory = ""
			out[i].Modules[j] = m
		}
	}
	return out
}
