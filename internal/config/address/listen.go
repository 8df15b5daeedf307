package address

import (
	"net"
	"net/netip"
)

// Clash tells whether two listeners with these addresses exclude each other.
func Clash(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	ipA, allA := ListenIP(hostA)
	ipB, allB := ListenIP(hostB)
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

// ListenIP returns the address of a host and whether it stands for all of its kind.
func ListenIP(host string) (ip netip.Addr, all bool) {
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

// Loopback tells whether only this machine can reach the address.
func Loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// Private tells whether an address is of this machine or of a private network:
// loopback, link local, RFC 1918, RFC 4193, and RFC 6598, which carriers and Kubernetes
// services use.
func Private(ip netip.Addr) bool {
	ip = ip.Unmap()
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || shared.Contains(ip)
}
