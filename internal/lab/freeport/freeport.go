// Package freeport finds addresses for servers that others start. It imports nothing of the project.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports below those that systems usually give to outgoing connections, from 32768 on: one of these
// would take such a port sooner or later, before the server does or while it is being restarted.
const lowest, highest = 10_000, 32_000

// Addresses returns n addresses of this machine, host:port, at which no program listens now.
func Addresses(n int) (out []string, err error) {
	for tries := 0; len(out) < n; tries++ {
		l, fault := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.N(highest-lowest))))
		if fault != nil {
			if err = errors.Join(err, fault); tries > 100+n {
				return nil, err
			}
			continue
		}
		defer l.Close() // all are chosen before the first is free again
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// Address is one of Addresses.
func Address() (string, error) {
	all, err := Addresses(1)
	if err != nil {
		return "", err
	}
	return all[0], nil
}
