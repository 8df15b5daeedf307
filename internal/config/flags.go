package config

import (
	"errors"
	"strings"

	"external-server/internal/config/files"
)

// Flags are the options of the command line that override the file (CLI-4 to CLI-7).
type Flags struct {
	TLS           *bool // --tls, --no-tls; nil: neither
	CA, Cert, Key string
}

// movePlace notes that a file of the broker's TLS came from the command line.
func (c *Config) movePlace(flag string) {
	name := PlaceBrokerCert
	if flag == "--ca" {
		name = PlaceBrokerCA
	}
	if c.places == nil {
		c.places = make(map[string]place)
	}
	c.places[name] = place{key: flag}
}

// ApplyFlags overrides the TLS settings of the broker. --tls needs all three
// files, those of the configuration count (CLI-10); --ca, --cert and --key
// replace single files where TLS is on and are ignored elsewhere (CLI-7).
func (c *Config) ApplyFlags(f Flags) error {
	on := c.Broker.TLS != nil
	if f.TLS != nil {
		on = *f.TLS
	}
	if !on {
		c.Broker.TLS = nil
		c.settlePort()
		return nil
	}
	type option struct{ what, name, value string }
	options := []option{{"CA certificate", "--ca", f.CA}, {"client certificate (PEM)", "--cert", f.Cert}, {"private key", "--key", f.Key}}
	merged := c.Broker.files
	paths := []*string{&merged.CAFile, &merged.CertFile, &merged.KeyFile}
	var missing, faults []string
	check := &files.Checker{}
	for i, o := range options {
		if o.value != "" {
			*paths[i] = o.value
			c.movePlace(o.name)
			if fault := check.Readable(o.value); fault != "" { // CLI-11
				faults = append(faults, o.name+": "+fault)
			}
		}
		if *paths[i] == "" {
			missing = append(missing, o.what+" ("+o.name+")")
		}
	}
	if f.TLS != nil && len(missing) > 0 {
		return errors.New("arguments are invalid: TLS needs additional parameters: " + strings.Join(missing, ", "))
	}
	if len(faults) > 0 {
		return errors.New("arguments are invalid: " + strings.Join(faults, "; "))
	}
	if (merged.CertFile == "") != (merged.KeyFile == "") {
		return errors.New("arguments are invalid: the client certificate (--cert) and its private key (--key) belong together")
	}
	c.Broker.TLS = &merged
	c.settlePort()
	return nil
}
