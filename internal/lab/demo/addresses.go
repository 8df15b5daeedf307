package demo

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"external-server/internal/config"
	"external-server/internal/lab/freeport"
)

// addresses are where the parts of the demo listen.
type addresses struct {
	broker, api, admin string
	notes              []string // what differs from what people expect, in words
}

// chooseAddresses takes the usual ports, or free ones instead of those that are taken.
// With a port, the three ports from there on are taken or it fails.
func chooseAddresses(port int) (at addresses, err error) {
	if port < 0 || port > 65533 {
		return at, fmt.Errorf("port %d: expected 1 to 65533; the two after it are used too", port)
	}
	for i, part := range []struct {
		name, usual string
		address     *string
	}{{"MQTT broker", config.DefaultBrokerListen, &at.broker}, {"HTTP API", config.DefaultAPIListen, &at.api}, {"dashboard", config.DefaultAdminListen, &at.admin}} {
		address := part.usual
		if port > 0 {
			address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port+i))
		}
		l, err := net.Listen("tcp", address)
		if err != nil && port > 0 {
			return at, fmt.Errorf("the %s cannot listen at %s: %w; choose another --port", part.name, address, err)
		}
		if err != nil {
			free, err := freeport.Address()
			if err == nil {
				l, err = net.Listen("tcp", free)
			}
			if err != nil {
				return at, err
			}
			at.notes = append(at.notes, fmt.Sprintf("Port %s is taken: the %s listens at %v instead.", strings.TrimPrefix(address, "127.0.0.1:"), part.name, l.Addr()))
		}
		*part.address = l.Addr().String()
		// The server takes the port a moment later. A program that is faster makes its start fail.
		if err := l.Close(); err != nil {
			return at, err
		}
	}
	return at, nil
}
