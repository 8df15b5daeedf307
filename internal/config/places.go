package config

import (
	"fmt"
	"net"
	"net/netip"

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
	add := func(key, address string) {
		for i, other := range addresses {
			if clash(address, other) {
				at := l.places[key]
				l.ErrorAt(at.line, at.column, key, fmt.Sprintf("%s listens on the same address; each needs a port of its own", keys[i]))
				return
			}
		}
		keys, addresses = append(keys, key), append(addresses, address)
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

// clash tells whether two listeners with these addresses exclude each other.
func clash(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	ipA, allA := listenIP(hostA)
	ipB, allB := listenIP(hostB)
	switch {
	case hostA == hostB:
		return true
	case !ipA.IsValid() || !ipB.IsValid(): // a name that only the resolver knows
		return false
	case allA && (ipA.Is6() || ipB.Is4()), allB && (ipB.Is6() || ipA.Is4()):
		return true // all addresses; those of IPv6 include those of IPv4
	}
	return ipA == ipB
}

// listenIP returns the address of a host and whether it stands for all of its kind.
func listenIP(host string) (ip netip.Addr, all bool) {
	switch host {
	case "":
		return netip.IPv6Unspecified(), true
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), false
	}
	ip, _ = netip.ParseAddr(host) // not valid: a name
	ip = ip.Unmap()
	return ip, ip.IsValid() && ip.IsUnspecified()
}
