package address

import (
	"net/netip"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		text, host string
		tls        bool
	}{
		{"localhost", "localhost", false},
		{"http://broker.example-1.org", "broker.example-1.org", false},
		{"https://10.0.0.1", "10.0.0.1", false},
		{"mqtt://under_score", "under_score", false},
		{"MQTTS://b", "b", true}, {"tcp://b", "b", false}, {"ssl://b", "b", true},
		{"::1", "::1", false}, {"[fe80::1%eth0]", "fe80::1%eth0", false}, {"http://[2001:db8::1]", "2001:db8::1", false},
	} {
		host, tls, fault := Broker(c.text)
		if host != c.host || tls != c.tls || fault != "" {
			t.Errorf("%s: %q, TLS %v, %s", c.text, host, tls, fault)
		}
	}
	for _, text := range []string{"", "http://", "a b", "a/b", "a:1", "[::1]:1883", "ftp://a", "a..b", ".a", "user@a", "ä"} {
		if host, _, fault := Broker(text); fault == "" {
			t.Errorf("%q gives %q", text, host)
		}
	}
}

// TestAddressesApart: what can be listened on at the same time is no error.
func TestAddressesApart(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"[::1]:80", "127.0.0.1:80", false},
		{"0.0.0.0:80", "[::1]:80", false},
		{"a.example:80", "b.example:80", false},
		{"a.example:80", "a.example:80", true},
		{":80", "127.0.0.1:80", true},
		{"[::1]:80", "[::]:80", true},
		{"127.0.0.1:80", "0.0.0.0:80", true},
	} {
		if Clash(c.a, c.b) != c.want || Clash(c.b, c.a) != c.want {
			t.Errorf("%s and %s: %v, want %v", c.a, c.b, !c.want, c.want)
		}
	}
}

func TestPrivateAddress(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1": true, "::1": true, "10.1.2.3": true, "172.31.0.1": true, "192.168.1.1": true, "100.64.0.1": true, "fd00::1": true,
		"fe80::1": true, "169.254.1.1": true, "::ffff:10.0.0.1": true, "8.8.8.8": false, "172.32.0.1": false, "100.128.0.1": false, "2001:db8::1": false, "0.0.0.0": false} {
		if got := Private(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
