package address

import (
	"net"
	"net/netip"
	"regexp"
	"strings"
)

var (
	scheme   = regexp.MustCompile(`^(?i)(https?|mqtts?|tcp|ssl|tls)://`)
	hostname = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
)

// IsHostname tells whether text can be the name of a host.
func IsHostname(text string) bool { return hostname.MatchString(text) }

// Broker strips a scheme (REC-23) and returns the host, or what is wrong with it. The
// schemes of MQTT over TLS ask for TLS; https does not, because the reference never meant
// it so.
func Broker(text string) (host string, secure bool, fault string) {
	found := strings.ToLower(scheme.FindString(text))
	secure = found == "mqtts://" || found == "ssl://" || found == "tls://"
	host = text[len(found):]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && strings.Contains(inner, ":") {
			host = inner
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, secure, ""
	}
	switch {
	case host == "":
		return "", secure, "must not be empty; expected the host name or IP address of the MQTT broker"
	case hostname.MatchString(host):
		return host, secure, ""
	case strings.ContainsAny(host, "/@?"):
		return "", secure, "expected a host name or IP address only, without path, query and user name"
	}
	if h, _, err := net.SplitHostPort(host); err == nil && (hostname.MatchString(h) || strings.Contains(h, ":")) {
		return "", secure, "expected a host name or IP address without port; the port has its own key"
	}
	return "", secure, "expected a host name (letters, digits, -, _ and dots), an IPv4 or an IPv6 address"
}
