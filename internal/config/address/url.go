package address

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const maxMapTiles = 1000 // bytes

// Etcd reads one URL of etcd, and adds its usual port. The text says what was expected when
// it is none.
func Etcd(text string) (*url.URL, string) {
	const expected = `expected a URL such as "http://etcd-0.example.org:2379", with host and port alone`
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, expected
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && !hostname.MatchString(u.Hostname()) {
		return nil, expected
	}
	port := cmp.Or(u.Port(), "2379")
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return nil, expected
	}
	return &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), port)}, ""
}

// TilesFault says what is wrong with the URL of map tiles, "" if nothing. Its origin becomes a part of the
// dashboard's Content-Security-Policy, so nothing is let through that means something there.
func TilesFault(tiles string) string {
	if tiles == "" {
		return ""
	}
	if len(tiles) > maxMapTiles {
		return "longer than 1000 bytes"
	}
	if strings.ContainsFunc(tiles, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"'<>\^`+"`", r) }) {
		return "a space, quote or other character that no URL has"
	}
	rest := tiles
	for _, name := range []string{"{z}", "{x}", "{y}"} {
		if strings.Count(tiles, name) != 1 {
			return name + " must be there once"
		}
		rest = strings.Replace(rest, name, "0", 1)
	}
	if strings.ContainsAny(rest, "{}") {
		return "only {z}, {x} and {y} are replaced"
	}
	u, err := url.Parse(rest)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "":
		return "not a URL of http or https"
	case u.User != nil:
		return "a URL with user name, which browsers do not load"
	case u.Fragment != "":
		return "a URL with #, which is sent to no server"
	case !strings.HasPrefix(tiles, u.Scheme+"://"+u.Host+"/"):
		return "{z}, {x} and {y} must stand behind the host"
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		return "an IPv6 address, which browsers let no page name as the origin of images; give it a name"
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostname.MatchString(host) {
		return "the host is no name and no address"
	}
	if port := u.Port(); port != "" && (len(port) > 5 || strings.Trim(port, "0123456789") != "") {
		return "the port is no number"
	}
	return ""
}

// LoopbackOrigin tells whether the host of a URL of map tiles is this machine.
func LoopbackOrigin(tiles string) bool {
	u, err := url.Parse(tiles)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
}
