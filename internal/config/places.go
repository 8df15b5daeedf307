package config

import (
	"fmt"

	"external-server/internal/config/address"
	"external-server/internal/fleet"
)

// Names of the places that do not have the same key in every notation.
const (
	PlaceBrokerCA   = "broker.ca"
	PlaceBrokerCert = "broker.cert"
	PlaceLogPath    = "log.path"
)

// place is where a value was configured.
type place struct {
	key          string
	line, column int // 0: on the command line
}

// note remembers where a value stands that can only be tried later.
func (l *loader) note(name string, off int, key string) {
	if l.places == nil {
		l.places = make(map[string]place)
	}
	line, column := l.Position(off)
	l.places[name] = place{key, line, column}
}

// Problem is a fault of a value that the file alone does not show. name is the key
// of the value, or one of the places above.
func (c *Config) Problem(name, text string) Problem {
	p := Problem{File: c.Source, Key: name, Text: text}
	if at, ok := c.places[name]; ok {
		p.Key, p.Line, p.Column = at.key, at.line, at.column
		if at.line == 0 {
			p.File = ""
		}
	}
	return p
}

// maxTopic is the length of the longest topic in bytes, a limit of MQTT.
const maxTopic = 65535

// tooLong tells whether the longest topic of a car would be too long.
func tooLong(company, car string) bool {
	return len(company)+len("/")+len(car)+len(fleet.TopicDisconnect) > maxTopic
}

// clashes reports two parts of the server that want the same address.
func (l *loader) clashes(cfg *Config) {
	var keys, addresses []string
	add := func(key, listen string) {
		for i, other := range addresses {
			if address.Clash(listen, other) {
				at := l.places[key]
				l.ErrorAt(at.line, at.column, key, fmt.Sprintf("%s listens on the same address; each needs a port of its own", keys[i]))
				return
			}
		}
		keys, addresses = append(keys, key), append(addresses, listen)
	}
	if b := cfg.EmbeddedBroker; b != nil {
		add("embedded_broker.listen", b.Listen)
	}
	if h := cfg.HTTPAPI; h != nil {
		add("http_api.listen", h.Listen)
	}
	if a := cfg.Admin; a != nil {
		add("admin.listen", a.Listen)
	}
	if c := cfg.Cluster; c != nil {
		add("cluster.peer_listen", c.PeerListen)
	}
}
