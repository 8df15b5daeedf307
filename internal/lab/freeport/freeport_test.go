package freeport

import (
	"net"
	"strconv"
	"testing"
)

func TestAddresses(t *testing.T) {
	all, err := Addresses(200)
	if err != nil || len(all) != 200 {
		t.Fatalf("%d addresses: %v", len(all), err)
	}
	seen := make(map[string]bool)
	for _, a := range all {
		host, port, err := net.SplitHostPort(a)
		if n, fault := strconv.Atoi(port); err != nil || fault != nil || host != "127.0.0.1" || n < lowest || n >= highest {
			t.Errorf("address %q", a)
		}
		if seen[a] {
			t.Errorf("%s twice", a)
		}
		seen[a] = true
	}
	if a, err := Address(); err != nil || a == "" {
		t.Errorf("%q, %v", a, err)
	}
}
